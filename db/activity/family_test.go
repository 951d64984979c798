package activity

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestANameIsCutBeforeWhatDiffersFromProcessToProcess(t *testing.T) {
	for name, want := range map[string]string{
		"web": "web", "worker-4711-thread-3": "worker", "http-nio-8080-exec-3": "http-nio", "puma: cluster worker 1: 4000 [shop]": "puma",
		"job-f47ac10b-58cc-4372-a567-0e02b2c3d479": "job", "job-abcdefab-58cc-4372-a567-0e02b2c3d479": "job", "F47AC10B-58CC": "",
		"celery@deadbeef01": "celery@", "facade": "facade", "cafe9": "cafe", "[4711] web": "", "": "",
	} {
		if got := stem(name); got != want {
			t.Errorf("%q begins with %q, want %q", name, got, want)
		}
	}
}

func TestIdleSessionTimeoutIsAdvisedWhereTheServerHasIt(t *testing.T) {
	var leaked []Session
	for n := range 70 {
		leaked = append(leaked, with(in(Idle, time.Duration(n+1)*time.Minute), func(x *Session) { x.Application, x.Age = "web", x.InState }))
	}
	for version, want := range map[int]bool{130023: false, 140000: true, 180004: true} {
		now := of(leaked)
		now.Server.VersionNum = version
		d := Diagnose(now, nil, defaults())
		has := slices.ContainsFunc(d.Steps, func(s Step) bool { return strings.Contains(s.Command, "idle_session_timeout") })
		if d.Scenario == nil || d.Scenario.Name != "thread-leak" || has != want {
			t.Errorf("on %d: %v, %+v", version, d.Scenario, d.Steps)
		}
	}
}
