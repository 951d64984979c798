package main

import "testing"

func TestASuggestedCommandReachesItsServer(t *testing.T) {
	r := suggester{"./bin/ddtb", map[string]string{"db-connections": " --dsn @/a/ddtb.dsn", "strategy": " --addr 127.0.0.1:9000"}}
	for given, want := range map[string]string{
		"":                                     "",
		"ddtb db-connections close-idle --yes": "./bin/ddtb db-connections --dsn @/a/ddtb.dsn close-idle --yes",
		"ddtb strategy pool":                   "./bin/ddtb strategy --addr 127.0.0.1:9000 pool",
		"ddtb lab run thread-leak":             "./bin/ddtb lab run thread-leak",
		"see who has them: `ddtb db-connections status`": "see who has them: `./bin/ddtb db-connections --dsn @/a/ddtb.dsn status`",
		"sudo -u postgres ddtb db-connections doctor":    "sudo -u postgres ddtb db-connections doctor", // as another user, elsewhere
		"Run `ddtb migrate`: it makes":                   "Run `./bin/ddtb migrate`: it makes",
		"all leases of ddtb are out":                     "all leases of ddtb are out",
	} {
		if got := r.complete(given); got != want {
			t.Errorf("%q became %q, not %q", given, got, want)
		}
	}
}
