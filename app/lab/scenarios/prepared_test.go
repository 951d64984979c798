package scenarios_test

import (
	"testing"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
)

func TestOnlyLostStatementsReproducePreparedUnderPooler(t *testing.T) {
	server := openLab(t)
	found, err := scenarios.Find("prepared-under-pooler")
	if err != nil {
		t.Fatal(err)
	}
	if r := server.Run(t.Context(), found, scene.Plan{}); !r.Reproduced || !r.Fixed {
		t.Errorf("%s: %+v, %+v", r.Verdict(), r.Failure, r.Fix)
	}
	broken := *found
	broken.Setup = func(s *scene.Stage) {
		conn, err := s.Connect(s.Context())
		if err == nil {
			_, err = conn.Exec(s.Context(), "DROP TABLE IF EXISTS polls")
		}
		if err != nil {
			t.Error(err)
		}
	}
	r := server.Run(t.Context(), &broken, scene.Plan{})
	if r.Reproduced || r.Failure.Refused == 0 || r.Failure.SQLStates["42P01"] == 0 {
		t.Errorf("errors of another kind are %s: %+v", r.Verdict(), r.Failure)
	}
	if r.Fixed || r.Fix.Refused == 0 {
		t.Errorf("with the fix nothing may fail: %+v", r.Fix)
	}
}
