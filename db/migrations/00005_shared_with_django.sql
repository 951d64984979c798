-- Changes that let Django use these tables like its own.

-- +goose Up
-- `manage.py flush` truncates auth_user, which PostgreSQL refuses while another table refers to it. A session without
-- its user is useless, even if the id is reused: password_mark is a hash of that user's salted password hash.
ALTER TABLE ddtb_session DROP CONSTRAINT IF EXISTS ddtb_session_user_id_fkey;

-- Django's own index of the foreign key is enough.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_index ours JOIN pg_index theirs USING (indrelid)
        WHERE ours.indexrelid = to_regclass('polls_choice_question_id_idx') AND theirs.indexrelid <> ours.indexrelid
            AND theirs.indkey = ours.indkey AND theirs.indclass = ours.indclass AND theirs.indpred IS NULL AND theirs.indisvalid
    ) THEN
        DROP INDEX polls_choice_question_id_idx;
    END IF;
END
$$;
-- +goose StatementEnd

-- Django before 4.1 changes an id's type by replacing its sequence, which it can't do with an identity column. A serial
-- column works with every Django. If Django uses the database, its columns stay unchanged.
-- +goose StatementBegin
DO $$
DECLARE
    c record;
BEGIN
    IF to_regclass('django_migrations') IS NOT NULL THEN
        RETURN;
    END IF;
    FOR c IN
        SELECT relname AS "table", format_type(atttypid, NULL) AS type, relname || '_id_seq' AS sequence
        FROM pg_attribute a JOIN pg_class ON pg_class.oid = attrelid
        WHERE attname = 'id' AND attidentity = 'd' AND attrelid IN (
            to_regclass('polls_question'), to_regclass('polls_choice'), to_regclass('django_content_type'),
            to_regclass('auth_permission'), to_regclass('auth_group'), to_regclass('auth_group_permissions'),
            to_regclass('auth_user'), to_regclass('auth_user_groups'), to_regclass('auth_user_user_permissions'),
            to_regclass('django_admin_log'))
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN id DROP IDENTITY', c."table");
        EXECUTE format('CREATE SEQUENCE %I AS %s OWNED BY %I.id', c.sequence, c.type, c."table");
        EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT nextval(%L)', c."table", c.sequence);
        EXECUTE format('SELECT setval(%L, max(id)) FROM %I HAVING max(id) > 0', c.sequence, c."table");
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- Sessions of deleted users would violate the foreign key.
DELETE FROM ddtb_session WHERE user_id NOT IN (SELECT id FROM auth_user);
ALTER TABLE ddtb_session ADD CONSTRAINT ddtb_session_user_id_fkey
    FOREIGN KEY (user_id) REFERENCES auth_user (id) ON DELETE CASCADE;
