// Stands in for the module of this name, which the public module proxy refuses. Its packages are copied from
// sigs.k8s.io/gateway-api/conformance v1.6.3.
module sigs.k8s.io/gateway-api-conformance-images

go 1.26.0

require (
	golang.org/x/net v0.61.0
	google.golang.org/grpc v1.84.0
	google.golang.org/protobuf v1.36.12
)
