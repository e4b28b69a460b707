//! A real control plane on a bare machine, and everything else that end-to-end tests need.
//!
//! [`cluster`] starts etcd, kube-apiserver, kube-controller-manager, kube-scheduler and, for each of two Nodes,
//! kube-proxy and our [`kubelet`], which runs pods as processes in kernel namespaces. Everything lives in its own
//! network, mount and process namespace: when its first process ends, nothing is left.

pub mod cluster;
pub mod container;
pub mod echo;
pub mod image;
pub mod kubelet;
pub mod load;
pub mod load_balancer;
pub mod procfs;
pub mod rights;
pub mod scene;
