"""Where the blocks live: back ends behind one small interface."""
