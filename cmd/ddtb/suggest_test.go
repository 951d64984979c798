package main

import "testing"

func TestASuggestedCommandReachesItsServer(t *testing.T) {
	r := suggester{program: "./bin/ddtb", config: " --config x", byDSN: true, flags: map[string]string{
		"db-connections": " --dsn @/a/ddtb.dsn", "strategy": " --addr 127.0.0.1:9000",
	}}
	for given, want := range map[string]string{
		"":                                               "",
		"ddtb db-connections close-idle --yes":           "./bin/ddtb db-connections --dsn @/a/ddtb.dsn close-idle --yes",
		"ddtb strategy pool":                             "./bin/ddtb strategy --addr 127.0.0.1:9000 pool",
		"ddtb lab run thread-leak":                       "./bin/ddtb lab --config x run thread-leak",
		"run `ddtb migrate` or `ddtb run`":               "run `./bin/ddtb migrate --config x` or `./bin/ddtb run --config x`",
		"ddtb lab --config x run thread-leak":            "./bin/ddtb lab --config x run thread-leak",
		"ddtb is running":                                "ddtb is running",
		"see why: `ddtb config check --connect`":         "see why: `./bin/ddtb db-connections --dsn @/a/ddtb.dsn status`",
		"psql -h db -c x":                                "psql -h db -c x",
		"see who has them: `ddtb db-connections status`": "see who has them: `./bin/ddtb db-connections --dsn @/a/ddtb.dsn status`",
		"all leases of ddtb are out":                     "all leases of ddtb are out",
	} {
		if got := r.complete(given); got != want {
			t.Errorf("%q became %q, not %q", given, got, want)
		}
	}
}
