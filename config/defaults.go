package config

import (
	"time"

	"ddtb/db"
)

// Default returns the defaults. ddtb.toml explains each value; a test keeps the two identical.
func Default() Config {
	return Config{
		Databases: map[string]Database{"default": db.DefaultSettings()},
		Server: Server{
			Addr:            "127.0.0.1:8000", // as runserver's: seen from this machine alone
			Replicas:        1,
			ShutdownTimeout: 10 * time.Second, // docker stop's timeout
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
