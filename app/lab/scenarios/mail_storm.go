package scenarios

import (
	"context"
	"fmt"
	"net/smtp"
	"time"

	"ddtb/app/lab/scene"
)

var _ = add(scene.Scenario{
	Number: 18, Name: "mail-storm", Title: "one mail for each failed request",
	Family: scene.Reporting, Message: "[shop] ERROR (EXTERNAL IP): Internal Server Error: /polls/",
	Why: "The error handler mails every traceback to the administrators, from inside the request. " +
		"When no slot is free every request fails, so every request sends a mail. " +
		"The mail server delays or blocks the sender, requests wait for it, and the one mail that matters is lost among hundreds.",
	Figure: "mails sent", FixedBy: "one mail for a cause, sent outside of the request, with a count of the rest",
	Note: "A real Django 3.2 sent 200 mails for 200 failures.",
	SQL: `SELECT current_setting('max_connections') AS max, count(*) AS used
FROM pg_stat_activity WHERE backend_type = 'client backend'; -- mails leave no trace here`,
	Recipe: "reporting", Threads: scene.Threads("debusine#795", "EbookFoundation/regluit#1127"), Tolerated: 2,
	Load:  scene.Load{Requests: 100, Every: 8 * time.Millisecond, Patience: 30 * time.Second},
	Setup: func(s *scene.Stage) { s.Fill(20) },
	Value: scene.Counted, Fails: mailStormFails, Works: mailStormWorks,
})

func mailStormFails(s *scene.Stage) scene.Request {
	box := s.Mailbox()
	s.BeforeCounting(func() { s.Count(box.Mails()) })
	return func(ctx context.Context, n int) error {
		_, err := s.Connect(ctx)
		if err != nil {
			addr := fmt.Sprintf("%s:%d", box.Config.Host, box.Config.Port)
			text := []byte("Subject: [shop] Internal Server Error: /polls/\r\n\r\n" + err.Error())
			_ = smtp.SendMail(addr, nil, box.Config.From, box.Config.Admins, text)
		}
		return err
	}
}

func mailStormWorks(s *scene.Stage) scene.Request {
	box := s.Mailbox()
	report := newReporter(s, box.Config, "")
	s.BeforeCounting(func() { s.Count(box.Mails()) })
	return func(ctx context.Context, n int) error {
		_, err := s.Connect(ctx)
		if err != nil {
			report(err) // counts it, and returns at once
		}
		return err
	}
}
