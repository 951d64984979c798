package config

import (
	"time"

	"ddtb/db"
)

// Default is what holds where nothing is set. ddtb.toml says of each value why it is so; a test keeps the two
// the same.
func Default() Config {
	return Config{
		Databases: map[string]Database{"default": db.DefaultSettings()},
		Server: Server{
			Addr:            "127.0.0.1:8000", // as runserver's: seen from this machine alone
			Replicas:        1,
			ShutdownTimeout: 10 * time.Second, // what docker stop waits
		},
		Admin: Admin{SessionAge: 14 * 24 * time.Hour}, // Django's SESSION_COOKIE_AGE
		Mail: Mail{
			Backend:       "none",
			Host:          "localhost",
			Port:          25,
			TLS:           "starttls",
			From:          "ddtb@localhost",
			SubjectPrefix: "[ddtb] ",
			Limit:         MailLimit{Window: 10 * time.Minute, PerHour: 20},
		},
		Sentry:  Sentry{Environment: "production"},
		Tracing: Tracing{SampleRate: 1},
		Test:    Test{MaxThreads: 100, MaxHold: time.Minute},
		Monitor: Monitor{Interval: 2 * time.Second, Warn: 70, Critical: 85, IdleRatio: 50},
	}
}
