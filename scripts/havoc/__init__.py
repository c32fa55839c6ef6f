"""`scripts/chaos`: loads a whole system, breaks it by a plan, and looks from outside whether all is well."""
