// The Ingress conformance suite of the Kubernetes project, whose tests are a program: no package of it can be imported, so this
// module holds nothing of its own. `suite/` has its tests and features as they are in the newest commit, from which nothing but
// go.sum and what is no part of the tests was left out; the licence is in `suite/LICENSE`. It has no releases, and not every
// module proxy keeps a commit that is years old. Its libraries are those of the cluster that it runs on.
module fairway.dev/e2e/tools/ingress-conformance

go 1.26.0

require (
	k8s.io/api v0.36.3
	k8s.io/apimachinery v0.36.3
	k8s.io/client-go v0.36.3
	sigs.k8s.io/ingress-controller-conformance v0.0.0-20210427175938-f91a7996369a
)

replace sigs.k8s.io/ingress-controller-conformance => ./suite
