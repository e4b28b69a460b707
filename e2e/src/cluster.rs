//! The cluster as a whole, as the command line and the tests see it.
