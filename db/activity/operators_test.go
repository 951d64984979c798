package activity

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// spread are n sessions like x, each changed by its number.
func spread(n int, x Session, change func(*Session, int)) (sessions []Session) {
	for i := range n {
		sessions = append(sessions, with(x, func(x *Session) { change(x, i) }))
	}
	return sessions
}

func TestTheDoctorIsRightAboutProgramsThatShareANameOrHaveMany(t *testing.T) {
	resting := in(Idle, 10*time.Minute)
	java := func(user string) Session {
		return with(resting, func(x *Session) { x.Application, x.User = "PostgreSQL JDBC Driver", user })
	}
	for _, c := range []struct {
		name, culprit, scenario, first string
		sessions                       Snapshot
	}{
		{
			"two programs that their driver gives one name", "PostgreSQL JDBC Driver as shop", "replicas-times-pool",
			"close-idle --older-than=5m --application='PostgreSQL JDBC Driver' --user=shop", of(many(80, java("shop")), many(10, java("bill"))),
		},
		{
			"an exporter with sessions in each database", "postgres_exporter", "monitor-leaks",
			"close the 10 in database d0, the one of 8 with most of them, that have been idle for 5m", of(spread(80, resting, func(x *Session, i int) {
				x.Application, x.Database = "postgres_exporter", fmt.Sprintf("d%d", i%8)
			})),
		},
		{
			"a pool for each tenant", "user tenant0, user tenant1, user tenant10, user tenant11, user tenant12, user tenant13, …", "replicas-times-pool",
			"--application='' --user=tenant0 --database=tenant0", of(spread(94, resting, func(x *Session, i int) {
				x.Application, x.User = "", fmt.Sprintf("tenant%d", i%47)
				x.Database = x.User
			})),
		},
		{
			"transactions that failed and were not rolled back", "shop/pool", "leaked-transaction", "end nothing",
			of(many(90, in(IdleInTransactionEr, 3*time.Second))),
		},
		{
			"reports on foreign tables of the same server", "reports", "call-inside-transaction", "end nothing", of(
				many(40, with(in(IdleInTransaction, 3*time.Second), func(x *Session) { x.Application = "postgres_fdw" })),
				many(40, with(in(IdleInTransaction, 3*time.Second), func(x *Session) { x.Application = "reports" })),
			),
		},
		{
			"a role whose states are not recorded", "shop/pool", "", `ALTER ROLE "app" SET track_activities = on`,
			of(many(90, with(in(disabled, 0), func(x *Session) { x.Wait, x.Query = "Client/ClientRead", "" }))),
		},
		{
			"the worker of a subscription has what all wait for", "logical replication worker", "lock-queue", "WHERE pid = 7", of(
				many(1, with(in(Active, time.Minute), func(x *Session) {
					x.PID, x.Kind, x.Application, x.User = 7, "logical replication worker", "", "postgres"
				})),
				many(3, with(in(Active, 10*time.Second), func(x *Session) { x.Waits, x.Waited, x.BlockedBy = true, x.InState, []int32{7} })),
			),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Diagnose(c.sessions, nil, defaults())
			scenario := ""
			if d.Scenario != nil {
				scenario = d.Scenario.Name
			}
			if d.Culprit != c.culprit || scenario != c.scenario {
				t.Errorf("%s by %q", scenario, d.Culprit)
			}
			if !strings.Contains(d.Steps[0].String(), c.first) {
				t.Errorf("the first step is %q", d.Steps[0])
			}
		})
	}
}

func TestSessionsOfUnknownStateDoNotMove(t *testing.T) {
	for name, x := range map[string]Session{
		"not visible":  {Kind: ClientBackend, Hidden: true, Application: "theirs", User: "other", Database: "wall"},
		"not recorded": in(disabled, 0),
	} {
		t.Run(name, func(t *testing.T) {
			before, now := of(many(90, x)), of(many(90, x))
			now.At = before.At.Add(time.Second)
			if text := Diagnose(now, &before, defaults()).Holds[0].Evidence(); strings.Contains(text, "moved") {
				t.Error(text)
			}
		})
	}
}
