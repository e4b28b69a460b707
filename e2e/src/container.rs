//! The first process of a container: takes its place in the namespaces, gives up its rights, becomes the program.
