"""How far the cache is from the live teacher."""
