-- The admin's list of questions sorts by each of its columns. With the index, the first page of a million
-- questions in text order is as fast as the first page by date.

-- +goose Up
CREATE INDEX IF NOT EXISTS polls_question_question_text_id_idx ON polls_question (question_text, id);

-- +goose Down
DROP INDEX polls_question_question_text_id_idx;
