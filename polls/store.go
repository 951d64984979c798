package polls

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"ddtb/app/fault"
	"ddtb/db"
)

// Store accesses the polls in PostgreSQL. Each method for a page is one query on one lease. The clock of the server that
// answers decides which questions are published. So all readers of a page ask the same, and can share an answer under
// db.Multiplex.
type Store struct{ db *db.DB }

// NewStore makes a store on a migrated database.
func NewStore(d *db.DB) *Store { return &Store{d} }

// A Django model may allow NULL in these columns; one such row must not fail the list. It is an empty text, or no vote.
const latestSQL = `
SELECT id, coalesce(question_text, ''), pub_date
FROM polls_question
WHERE pub_date <= now()
ORDER BY pub_date DESC, id DESC
LIMIT $1`

// Latest returns the newest n published questions, newest first, without their choices.
func (s *Store) Latest(ctx context.Context, n int) ([]Question, error) {
	rows, err := s.db.Read().Query(ctx, latestSQL, n)
	if err != nil {
		return nil, &queryError{"latest polls", 0, err}
	}
	var (
		q         Question
		questions = make([]Question, 0, n)
	)
	_, err = pgx.ForEachRow(rows, []any{&q.ID, &q.Text, &q.PubDate}, func() error {
		questions = append(questions, q)
		return nil
	})
	if err != nil {
		return nil, &queryError{"latest polls", 0, err}
	}
	return questions, nil
}

// With the casts, an id beyond the column's type is a question that does not exist. Older Django makes the columns
// integer, and the parameter would have the column's type. The casts don't prevent the use of an index.
const publishedSQL = `
SELECT q.id, coalesce(q.question_text, ''), q.pub_date, c.id, coalesce(c.choice_text, ''), coalesce(c.votes, 0)
FROM polls_question q LEFT JOIN polls_choice c ON c.question_id = q.id
WHERE q.id = $1::bigint AND q.pub_date <= now()
ORDER BY c.id`

// Published returns the question with its choices. An unpublished or missing question is fault.NotFound.
func (s *Store) Published(ctx context.Context, id int64) (Question, error) {
	rows, err := s.db.Read().Query(ctx, publishedSQL, id)
	if err != nil {
		return Question{}, &queryError{"poll", id, err}
	}
	var (
		q        Question
		choiceID *int64 // NULL without choices
		choice   Choice
	)
	columns := []any{&q.ID, &q.Text, &q.PubDate, &choiceID, &choice.Text, &choice.Votes}
	found, err := pgx.ForEachRow(rows, columns, func() error {
		if choiceID != nil {
			choice.ID = *choiceID
			q.Choices = append(q.Choices, choice)
		}
		return nil
	})
	if err != nil {
		return Question{}, &queryError{"poll", id, err}
	}
	if found.RowsAffected() == 0 {
		return Question{}, fault.New(fault.NotFound, "There is no poll with the number %d.", id)
	}
	return q, nil
}

// One statement, so that a vote and the record of its token are stored together or not at all. A repeated token waits
// at the primary key for a running vote. Then it finds the vote counted, or takes its place. A concurrent vote for the
// same choice waits for its row and reads it again, so that no vote is lost. "fresh" is joined instead of using EXISTS,
// because the second read must not insert again. Each new token deletes two old ones, so at most one day's tokens are
// kept. Tokens being deleted by another vote are skipped.
const voteSQL = `
WITH open AS (
    SELECT c.id
    FROM polls_choice c JOIN polls_question q ON q.id = c.question_id
    WHERE c.id = $1::bigint AND q.id = $2::bigint AND q.pub_date <= now()
), fresh AS (
    INSERT INTO ddtb_vote (token, choice_id, at)
    SELECT $3::uuid, id, now() FROM open
    ON CONFLICT DO NOTHING
    RETURNING choice_id
), counted AS (
    UPDATE polls_choice c SET votes = coalesce(c.votes, 0) + 1
    FROM fresh WHERE c.id = fresh.choice_id
    RETURNING c.id
), forgotten AS (
    DELETE FROM ddtb_vote WHERE (token, choice_id) IN (
        SELECT token, choice_id FROM ddtb_vote
        WHERE at < now() - interval '1 day' ORDER BY at LIMIT 2 FOR UPDATE SKIP LOCKED
    )
)
SELECT EXISTS (SELECT FROM counted) OR EXISTS (SELECT FROM open) AND NOT EXISTS (SELECT FROM fresh)`

// Vote adds one vote to the choice if it belongs to the question and the question is published. It reports whether the
// vote is counted: now, or earlier with the same token. A token is remembered for at least a day. The zero token means
// a form without one, and is never a repetition. A vote that the server rolled back because of a conflict at the same
// row is retried.
func (s *Store) Vote(ctx context.Context, question, choice int64, token Token) (counted bool, err error) {
	if token == (Token{}) {
		token = newToken()
	}
	err = db.RetryTransaction(ctx, func() error {
		return s.db.QueryRow(ctx, voteSQL, choice, question, pgtype.UUID{Bytes: token, Valid: true}).Scan(&counted)
	})
	if err != nil {
		return false, fmt.Errorf("vote for choice %d of poll %d: %w", choice, question, err)
	}
	return counted, nil
}

// queryError composes its text when that is read. Most refusals are only counted.
type queryError struct {
	what string
	id   int64 // 0: none
	err  error
}

func (e *queryError) Error() string {
	if e.id == 0 {
		return e.what + ": " + e.err.Error()
	}
	return fmt.Sprintf("%s %d: %v", e.what, e.id, e.err)
}

func (e *queryError) Unwrap() error { return e.err }
