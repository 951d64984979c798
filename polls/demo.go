package polls

import (
	"context"
	"fmt"
	"time"

	"ddtb/db"
)

// LoadDemo fills an empty database with a few polls, and returns how many: none if there are questions already. Several
// processes may call it at once.
func (s *Store) LoadDemo(ctx context.Context, now time.Time) (made int, err error) {
	err = s.db.InTx(ctx, func(q db.Querier) error {
		made = 0
		// A second process waits for the first, and then sees its questions. Readers are not blocked.
		if _, err := q.Exec(ctx, `LOCK TABLE polls_question IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var inUse bool
		if err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM polls_question)`).Scan(&inUse); err != nil || inUse {
			return err
		}
		for _, d := range demo {
			if err := insert(ctx, q, d, now); err != nil {
				return fmt.Errorf("%q: %w", d.text, err)
			}
			made++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("load the demo polls: %w", err)
	}
	return made, nil
}

const insertSQL = `
WITH question AS (
    INSERT INTO polls_question (question_text, pub_date) VALUES ($1, $2) RETURNING id
)
INSERT INTO polls_choice (choice_text, votes, question_id)
SELECT given.text, given.votes, question.id
FROM question, unnest($3::text[], $4::int[]) WITH ORDINALITY AS given (text, votes, place)
ORDER BY place`

func insert(ctx context.Context, q db.Querier, d demoQuestion, now time.Time) error {
	texts, votes := make([]string, len(d.choices)), make([]int32, len(d.choices))
	for i, c := range d.choices {
		texts[i], votes[i] = c.text, c.votes
	}
	_, err := q.Exec(ctx, insertSQL, d.text, now.Add(-d.age), texts, votes)
	return err
}

type demoQuestion struct {
	text    string
	age     time.Duration // since publication; negative for a future question
	choices []demoChoice
}

type demoChoice struct {
	text  string
	votes int32
}

const day = 24 * time.Hour

// demo covers the cases of the pages: a new question, old ones, a sixth that the list leaves out, a future one that is
// not visible yet, markup that must be escaped, clear majorities, ties, and no votes.
var demo = []demoQuestion{
	{"“Sorry, too many clients already”: when did you meet it first?", 2 * time.Hour, []demoChoice{
		{"On the day of the launch, with everybody watching", 41},
		{"On a quiet laptop, with one user: me", 58},
		{"In a deploy, while old and new ran side by side", 37},
		{"At three in the morning, in two hundred mails", 23},
		{"I have not met it yet", 0},
	}},
	{"How many connections should a pool have?", 3 * day, []demoChoice{
		{"A few for each core, and a queue before it", 64},
		{"As many as max_connections allows", 9},
		{"One for each thread", 17},
		{"One hundred, as always", 17},
	}},
	{"What do you do first when every slot is taken?", 8 * day, []demoChoice{
		{"Look who holds them: pg_stat_activity", 52},
		{"Raise max_connections and restart", 31},
		{"Restart the application and look away", 46},
		{"Put PgBouncer in front", 38},
	}},
	{"Does <b>bold</b> & <script>alert('hi')</script> show here as it was typed?", 15 * day, []demoChoice{
		{"Yes: everything a person typed is text & nothing but text", 12},
		{`No: <img src=x onerror="alert(1)"> ran`, 0},
		{"'; DROP TABLE polls_choice; --", 1},
	}},
	{"Who closes the connection?", 29 * day, []demoChoice{
		{"Whoever opened it", 33},
		{"The pool, when it is old", 33},
		{"The garbage collector, some day", 5},
		{"Somebody else, surely", 14},
	}},
	{"Tabs or spaces?", 400 * day, []demoChoice{
		{"Tabs", 512}, {"Spaces", 509}, {"Whatever gofmt says", 1024},
	}},
	{"It is tomorrow: did the leak come back?", -day, []demoChoice{
		{"Yes", 0}, {"No", 0},
	}},
}
