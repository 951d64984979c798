-- Which forms have voted, so that one that is sent again counts once. Ours, not Django's: nothing in it refers to
-- Django's tables, which Django may then drop and delete from as if this one were not there. An id is not used twice.

-- +goose Up
CREATE TABLE ddtb_vote (
    token     uuid        NOT NULL,
    choice_id bigint      NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (token, choice_id)
);

-- Every vote removes a few that are old enough.
CREATE INDEX ddtb_vote_at_idx ON ddtb_vote (at);

-- +goose Down
DROP TABLE ddtb_vote;
