package app

import (
	"testing"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestTheServerIsJudgedByTheSettingsInEffect(t *testing.T) {
	cfg := config.Default()
	s := dbtest.Config(t)
	s.Strategy, s.Pool.MaxSize = db.Pool, 3
	cfg.Databases["default"] = s
	d, err := db.OpenWith(s, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	limits := thresholds(&cfg, d)
	if got := limits().Own; got != 3 {
		t.Errorf("at the start the application may have %d connections", got)
	}
	s.Pool.MaxSize, s.Budget = db.Auto, 5
	if err := d.Switch(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := limits(); got.Budget != 5 || got.Replica {
		t.Errorf("with a new budget: %+v", got)
	}
	if err := d.UseReplica(&s); err != nil {
		t.Fatal(err)
	}
	if !limits().Replica {
		t.Error("with a replica, a standby is a finding")
	}
}
