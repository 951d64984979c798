package scenarios_test

import (
	"testing"
	"time"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
)

func TestTheMigrationComesAfterTheReportHoweverSlowlyThatConnects(t *testing.T) {
	found, err := scenarios.Find("lock-queue")
	if err != nil {
		t.Fatal(err)
	}
	together := *found
	together.Load.Burst, together.Load.Every = 2, 40*time.Millisecond // both are due at the same moment
	server := openLab(t)
	for range 3 {
		if r := server.Run(t.Context(), &together, scene.Plan{Only: scene.Failure}); !r.OK() {
			t.Errorf("%s: %+v", r.Verdict(), r.Failure)
		}
	}
}
