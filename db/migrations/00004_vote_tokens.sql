-- The forms that have voted, so that a form that is sent twice counts once. The table is our own, not Django's. It does
-- not refer to Django's tables, so Django can drop them and delete from them. An id is never reused.

-- +goose Up
CREATE TABLE IF NOT EXISTS ddtb_vote (
    token     uuid        NOT NULL,
    choice_id bigint      NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (token, choice_id)
);

-- Every vote removes a few expired rows.
CREATE INDEX IF NOT EXISTS ddtb_vote_at_idx ON ddtb_vote (at);

-- +goose Down
DROP TABLE ddtb_vote;
