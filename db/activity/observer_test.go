package activity

import (
	"testing"

	"ddtb/db"
)

func TestAnObserverMovesToAnotherServerAndKeepsItsConnectionOnTheSame(t *testing.T) {
	first, second := servers[0], servers[1]
	o := first.observer(t, app)
	before := snapshot(t, o)

	cfg := first.config(app, "wall")
	cfg.Strategy, cfg.Pool.MaxSize = db.Persistent, 7
	first.fill(t, other, "crowd") // so that a connection which is closed has no successor
	must(t, o.Use(t.Context(), cfg))
	if now := snapshot(t, o); lookingPID(now) != lookingPID(before) {
		t.Errorf("another strategy: backend %d, before %d", lookingPID(now), lookingPID(before))
	}

	cfg = second.config(reader, "wall")
	cfg.ApplicationName = "kiosk"
	must(t, o.Use(t.Context(), cfg))
	now := snapshot(t, o)
	if now.Server.Version != second.Version() || now.Role.Name != reader || now.Application != "kiosk" || now.Server.Address == before.Server.Address {
		t.Errorf("after the move: %s at %s as %s for %s", now.Server.Version, now.Server.Address, now.Role.Name, now.Application)
	}

	cfg.SSLMode = "no such mode"
	if err := o.Use(t.Context(), cfg); err == nil {
		t.Error("settings that can't be used were taken")
	}
	if again := snapshot(t, o); lookingPID(again) != lookingPID(now) {
		t.Error("settings that can't be used cost the connection")
	}
}
