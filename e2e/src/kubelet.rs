//! The process kubelet: runs the pods that are bound to its Node.
