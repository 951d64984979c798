package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"ddtb/app"
	"ddtb/db/dbtest"
)

// undeclared is a machine whose configuration leads through a PgBouncer without saying so.
func undeclared(t *testing.T, mode string) (*machine, *bouncer) {
	t.Helper()
	m, direct := withDatabase(t)
	b := newBouncerFor(m, direct, direct.User, "pool_mode = transaction", "pool_mode = "+mode+unprepared(m))
	b.cfg.Pooler, b.cfg.DirectHost = "", ""
	m.configure(b.cfg)
	return m, b
}

// unprepared is the setting by which a PgBouncer that follows its clients' prepared statements, from 1.21 on, leaves that.
// Earlier ones refuse the setting.
func unprepared(m *machine) string {
	m.Helper()
	out, err := exec.CommandContext(m.Context(), findBouncer(m), "--version").Output()
	if err != nil {
		m.Fatal(err)
	}
	major, minor := 0, 0
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		m.Fatalf("%v: %s", err, out)
	}
	if major == 1 && minor < 21 {
		return ""
	}
	return "\nmax_prepared_statements = 0"
}

func TestAPoolerThatIsNotDeclaredIsSeenAtTheStart(t *testing.T) {
	t.Parallel()
	m, b := undeclared(t, "transaction")
	p := m.serving("runserver", "127.0.0.1:0")
	p.logsWhenProbed(`pooler = \"pgbouncer\"`, "lets clients share")
	var ready app.Ready
	status, body := p.page("/readyz")
	if err := json.Unmarshal([]byte(body), &ready); err != nil || status != http.StatusOK || !strings.Contains(ready.Warning, `pooler = "pgbouncer"`) {
		t.Errorf("/readyz: %d, %s, %v", status, body, err)
	}
	m.run("", "migrate").must(exitFailed, `pooler = "pgbouncer"`)
	m.run("", "config", "check", "--connect").must(exitFine, "Logged in", `pooler = \"pgbouncer\"`)
	m.configure(b.cfg, `pooler = "pgbouncer"`)
	dbtest.Eventually(t, "the warning goes with its reason", func() bool {
		_, body := p.page("/readyz")
		return !strings.Contains(body, "pgbouncer")
	})
}

func TestAPoolerThatMayBeInSessionModeIsReportedWithThatCondition(t *testing.T) {
	t.Parallel()
	m, _ := undeclared(t, "session")
	m.run("", "config", "check", "--connect").must(exitFine, "Logged in", "unless its pool_mode is session")
	m.serving("runserver", "127.0.0.1:0").logsWhenProbed("unless its pool_mode is session")
}

// logsWhenProbed waits for a warning. The look at the start may come too early, on a busy machine; each probe looks again.
func (p *process) logsWhenProbed(words ...string) {
	p.Helper()
	dbtest.Eventually(p.T, fmt.Sprintf("a warning with %q", words), func() bool {
		p.page("/readyz")
		return p.log.Count(append(words, "level=WARN")...) > 0
	})
}

func TestAServerWithoutAPoolerIsNotTakenForOne(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	p := m.serving("runserver", "127.0.0.1:0")
	if _, body := p.page("/readyz"); strings.Contains(body, "pooler") || p.log.Count("pooler") > 0 {
		t.Errorf("%s\n%s", body, p.log)
	}
}

// TestStatementsThatAPoolerHasMixedUpSayWhatToSet has other clients of the pooler take the names of the application's
// statements.
func TestStatementsThatAPoolerHasMixedUpSayWhatToSet(t *testing.T) {
	t.Parallel()
	m, _ := undeclared(t, "transaction")
	p := m.serving("runserver", "127.0.0.1:0")
	seen := ""
	dbtest.Eventually(t, "a page is refused", func() bool {
		done := make(chan string, 8)
		for range cap(done) {
			go func() {
				_, body := p.page("/polls/")
				done <- body
			}()
		}
		for range cap(done) {
			if body := <-done; strings.Contains(body, "pooler = ") {
				seen = body
			}
		}
		return seen != ""
	})
	if !strings.Contains(seen, "Its administrator has to set pooler = &#34;pgbouncer&#34;") {
		t.Error(seen)
	}
	p.logs(1, "A connection pooler is in the way", `set pooler = \"pgbouncer\"`)
}
