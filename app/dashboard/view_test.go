package dashboard

import (
	"slices"
	"testing"

	"ddtb/db/activity"
)

func TestTheAgeOfASessionThatTheRoleMayNotSeeIsNotZero(t *testing.T) {
	now := activity.Snapshot{Sessions: []activity.Session{{PID: 7, Kind: activity.ClientBackend, Application: "billing", Hidden: true}}}
	v := &view{Texts: map[string]string{}, Tables: map[string][][]string{}}
	v.server(&readings{Reading: activity.Reading{Snapshot: now, Sample: activity.SampleOf(now, nil, activity.Thresholds{})}})
	if row := v.Tables["applications"][0]; row[0] != "billing" || row[len(row)-1] != "–" {
		t.Errorf("the application: %q", row)
	}
	if row := v.Tables["sessions"][0]; !slices.Contains(row, "(not visible)") || row[5] != "–" {
		t.Errorf("the session: %q", row)
	}
}
