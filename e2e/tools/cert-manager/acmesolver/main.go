// The program in the pod that answers a challenge, with the arguments that cert-manager gives it.
package main

import (
	"flag"
	"os"

	"k8s.io/klog/v2"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
)

func main() {
	var server solver.HTTP01Solver
	flag.IntVar(&server.ListenPort, "listen-port", 8089, "the port")
	flag.StringVar(&server.Domain, "domain", "", "the name that is to be proved")
	flag.StringVar(&server.Token, "token", "", "the last part of the path")
	flag.StringVar(&server.Key, "key", "", "the answer")
	flag.Parse()
	log := klog.Background()
	if err := server.Listen(log); err != nil {
		log.Error(err, "it ends")
		os.Exit(1)
	}
}
