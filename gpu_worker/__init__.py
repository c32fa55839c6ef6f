"""A GPU node: joins the queue from anywhere, with nothing but the broker's URL."""
