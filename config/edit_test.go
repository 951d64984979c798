package config_test

import (
	"strings"
	"testing"
	"time"

	"ddtb/config"
	"ddtb/db"
)

func TestADatabaseIsEditedByTheRulesOfTheFile(t *testing.T) {
	before := config.Default().Databases["default"]
	after, problems := config.Edit(before, map[string]string{
		"strategy": "persistent", "pool.max_size": " 3 ", "pool.timeout": "2.5", "persistent.conn_max_age": "none", "persistent.reap": "true",
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if after.Strategy != "persistent" || after.Pool.MaxSize != 3 || after.Pool.Timeout != 2500*time.Millisecond ||
		after.Persistent.ConnMaxAge != db.Forever || !after.Persistent.Reap {
		t.Errorf("%+v", after)
	}
	if before.Pool.MaxSize != 10 {
		t.Error("the database that was there before was changed")
	}
	for key, want := range map[string]string{
		"strategy": "persistent", "pool.max_size": "3", "pool.timeout": "2.5s", "persistent.conn_max_age": "none", "persistent.reap": "true",
		"pool.max_lifetime": "1h", "no.such": "",
	} {
		if got := config.Text(after, key); got != want {
			t.Errorf("the text of %s is %q, want %q", key, got, want)
		}
	}
}

func TestAnEditReportsEachMistakeAtItsKey(t *testing.T) {
	d := config.Default().Databases["default"]
	d.Password = "hunter2"
	after, problems := config.Edit(d, map[string]string{
		"strategy": "poll", "pool.max_size": "", "pool.timeout": "soon", "per_request.max_size": "-1",
	})
	for key, want := range map[string]string{
		"strategy":             `did you mean "pool"?`,
		"pool.max_size":        "a whole number from 1 to 10000",
		"pool.timeout":         `found "soon"`,
		"per_request.max_size": "from 0 to 10000",
	} {
		if !strings.Contains(problems[key], want) {
			t.Errorf("%s: %q does not say %q", key, problems[key], want)
		}
	}
	if after != d {
		t.Errorf("what is wrong was taken: %+v", after)
	}
	if _, problems := config.Edit(d, map[string]string{"pool.min_size": "4", "pool.max_size": "3"}); problems["pool.max_size"] == "" {
		t.Error("a pool whose max_size is less than its min_size was taken")
	}
	if got := config.Text(d, "password"); got != "" {
		t.Errorf("the text of the password is %q", got)
	}
}
