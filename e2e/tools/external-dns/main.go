// external-dns over the Ingresses and routes of a cluster: its flags, sources, plan and in-memory provider, whose log lists the records that
// it creates. After each pass a line of JSON on standard output has all records. Its own main package is left out, because that compiles the
// clients of some thirty DNS services.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

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

// record is one of the provider's.
type record struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Targets []string `json:"targets"`
}

// run makes a pass after each interval, or one with --once, without a registry of owners.
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
	for {
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
		if err := provider.ApplyChanges(ctx, steps.Calculate().Changes); err != nil {
			return err
		}
		records, err := provider.Records(ctx)
		if err != nil {
			return err
		}
		if err := print(records); err != nil {
			return err
		}
		if config.Once {
			return nil
		}
		time.Sleep(config.Interval)
	}
}

func print(records []*endpoint.Endpoint) error {
	all := make([]record, 0, len(records))
	for _, one := range records {
		all = append(all, record{Name: one.DNSName, Type: one.RecordType, Targets: one.Targets})
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}
