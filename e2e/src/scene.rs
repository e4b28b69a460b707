//! What one end-to-end test works with: a namespace of its own in a cluster.
