// The libraries of the Ingress conformance suite of the Kubernetes project: those of the cluster that it runs on. Its tests are a
// program without releases, so `cargo xtask conformance` adds the folder of a checkout to a copy of this file.
module fairway.dev/e2e/tools/ingress-conformance

go 1.26.0

require (
	k8s.io/api v0.36.3
	k8s.io/apimachinery v0.36.3
	k8s.io/client-go v0.36.3
	sigs.k8s.io/ingress-controller-conformance v0.0.0-20210427175938-f91a7996369a
)
