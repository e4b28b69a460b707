// One pass of external-dns over the Ingresses of a cluster: its flags, sources, plan and in-memory provider, whose log lists the
// records that it creates. Its own main package is left out, because that compiles the clients of some thirty DNS services.
package main

import (
	"context"
	"os"

	log "github.com/sirupsen/logrus"

	"sigs.k8s.io/external-dns/endpoint"
	"sigs.k8s.io/external-dns/pkg/apis/externaldns"
	"sigs.k8s.io/external-dns/plan"
	"sigs.k8s.io/external-dns/provider/inmemory"
	"sigs.k8s.io/external-dns/source"
	"sigs.k8s.io/external-dns/source/annotations"
	"sigs.k8s.io/external-dns/source/wrappers"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// run does what external-dns does with --once, without a registry of owners.
func run(ctx context.Context) error {
	config := externaldns.NewConfig()
	if err := config.ParseFlags(os.Args[1:]); err != nil {
		return err
	}
	annotations.SetAnnotationPrefix(config.AnnotationPrefix)
	sources, err := source.NewSourceConfig(config)
	if err != nil {
		return err
	}
	wanted, err := wrappers.Build(ctx, sources)
	if err != nil {
		return err
	}
	filter := endpoint.NewDomainFilter(config.DomainFilter)
	provider, err := inmemory.New(ctx, config, filter)
	if err != nil {
		return err
	}
	current, err := provider.Records(ctx)
	if err != nil {
		return err
	}
	desired, err := wanted.Endpoints(ctx)
	if err != nil {
		return err
	}
	steps := &plan.Plan{
		Policies:       []plan.Policy{plan.Policies[config.Policy]},
		Current:        current,
		Desired:        desired,
		DomainFilter:   endpoint.MatchAllDomainFilters{filter},
		ManagedRecords: config.ManagedDNSRecordTypes,
	}
	return provider.ApplyChanges(ctx, steps.Calculate().Changes)
}
