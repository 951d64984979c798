package activity

import (
	"fmt"
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

func TestAFamilyIsNotChosenByAFilterThatChoosesOthers(t *testing.T) {
	named := func(application string) Session {
		return with(in(Idle, time.Hour), func(x *Session) { x.Application, x.User = application, "app" })
	}
	var web, jobs []Session
	for n := range 6 {
		web = append(web, many(10, named(fmt.Sprintf("web-%d", n)))...)
		jobs = append(jobs, many(2, named(fmt.Sprintf("%c-job", 'a'+n)))...)
	}
	shop, alone := in(Idle, time.Hour), many(60, named("web"))
	for name, c := range map[string]struct {
		now   Snapshot
		first string // "": none ends a session
	}{
		"a family":                         {of(web), "--application='web*'"},
		"a family, and a name like it":     {of(web, many(10, named("webhooks"))), ""},
		"one name, and another like it":    {of(alone, many(10, named("webhooks"))), "--application=web"},
		"a role with a name for each":      {of(jobs), "--user=app"},
		"the application's role, the same": {of(jobs, many(1, shop)), ""},
	} {
		p := examine(c.now, nil, defaults())
		if got := p.selector(); !strings.Contains(got, c.first) || c.first == "" && got != "" {
			t.Errorf("%s: %q of %s", name, got, p.Application)
		}
	}
}

func TestASuperuserIsShownTheRestingSessionsAlone(t *testing.T) {
	theirs := func(idle time.Duration) Session {
		return with(in(Idle, idle), func(x *Session) { x.Application, x.User, x.Superuser, x.MayEnd = "web", "postgres", true, false })
	}
	d := Diagnose(of(many(60, theirs(time.Hour)), many(30, theirs(0))), nil, defaults())
	step := d.Steps[0]
	if pids := strings.Count(step.Command, ","); pids != 60 || !strings.Contains(step.Do, "close the 60 ") {
		t.Errorf("%d commas: %+v", pids, step)
	}
}
