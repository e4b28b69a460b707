#!/usr/bin/env bash
# Prometheus 3 does not store le="1" as it was exposed, and whether it changes it depends on a comment line.
#
# Needs: go 1.24 or newer (any system with the Go toolchain).
#
# Expected: a label's value is an opaque string. A rule or dashboard copies le="1" from the /metrics page of the proxy, and matches.
#
# What happens: in a family whose TYPE is histogram the scrape parser writes le as a number with a decimal point: "1" becomes "1.0", "1e-3"
# becomes "0.001"; in a summary, the same goes for quantile. Under TYPE gauge, and without a TYPE line, le stays as it is. So
# sum(rate(x_bucket{le="1"}[5m])), the usual expression for "share of requests faster than one second", matches nothing: no error, an empty
# graph, and an alert that never fires.
#
# Why it matters: shipped rules and dashboards must match both forms of a whole bound (le=~"1(\.0)?") as long as the page says "1",
# or the page says "1.0" from the start. A TYPE line that is lost in a relay, or changed, makes two sets of series out of one.
#
# Seen with github.com/prometheus/prometheus v0.305.0 (Prometheus 3.5.0), the text format 0.0.4 and OpenMetrics 1.0.0 alike:
#   TYPE x histogram   x_bucket{le="1"}       {__name__="x_bucket", le="1.0"}
#   TYPE x histogram   x_bucket{le="1e-3"}    {__name__="x_bucket", le="0.001"}
#   TYPE x histogram   x_bucket{le="0.25"}    {__name__="x_bucket", le="0.25"}
#   TYPE x summary     x{quantile="1"}        {__name__="x", quantile="1.0"}
#   TYPE x gauge       x{le="1"}              {__name__="x", le="1"}
#   no TYPE            x_bucket{le="1"}       {__name__="x_bucket", le="1"}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >main.go <<'GO'
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

func main() {
	for _, kind := range []string{"text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"} {
		for _, page := range [][2]string{
			{"TYPE x histogram", `x_bucket{le="1"}`},
			{"TYPE x histogram", `x_bucket{le="1e-3"}`},
			{"TYPE x histogram", `x_bucket{le="0.25"}`},
			{"TYPE x summary", `x{quantile="1"}`},
			{"TYPE x gauge", `x{le="1"}`},
			{"no TYPE", `x_bucket{le="1"}`},
		} {
			text := page[1] + " 7\n# EOF\n"
			if page[0] != "no TYPE" {
				text = "# " + page[0] + "\n" + text
			}
			parser, err := textparse.New([]byte(text), kind, "", false, false, false, labels.NewSymbolTable())
			for err == nil {
				var entry textparse.Entry
				if entry, err = parser.Next(); err == nil && entry == textparse.EntrySeries {
					var series labels.Labels
					parser.Labels(&series)
					fmt.Printf("%-17s  %-21s  %s\n", page[0], page[1], series)
				}
			}
			if !errors.Is(err, io.EOF) {
				fmt.Println(err)
				os.Exit(1)
			}
		}
	}
}
GO
go mod init finding 2>/dev/null
go get github.com/prometheus/prometheus@v0.305.0 2>/dev/null
go mod tidy 2>/dev/null
go run . | tee seen

cat >once <<'TEXT'
TYPE x histogram   x_bucket{le="1"}       {__name__="x_bucket", le="1.0"}
TYPE x histogram   x_bucket{le="1e-3"}    {__name__="x_bucket", le="0.001"}
TYPE x histogram   x_bucket{le="0.25"}    {__name__="x_bucket", le="0.25"}
TYPE x summary     x{quantile="1"}        {__name__="x", quantile="1.0"}
TYPE x gauge       x{le="1"}              {__name__="x", le="1"}
no TYPE            x_bucket{le="1"}       {__name__="x_bucket", le="1"}
TEXT
cat once once | diff - seen && echo "As described: $(go version), github.com/prometheus/prometheus v0.305.0."
