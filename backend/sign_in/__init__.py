"""Who the bearer of an access token is: users of a Supabase project."""
