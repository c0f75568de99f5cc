-- The engine's statements, each under its name. The agent's own are with the agent.

-- name: insert_project
INSERT INTO project (id, name, file, environment, log_dir, created_at) VALUES (1, ?, ?, ?, ?, ?)

-- name: project
SELECT name, file, environment, log_dir, created_at FROM project

-- name: adopt
UPDATE project SET file = :file, environment = :environment, log_dir = :log_dir

-- name: known_revisions
SELECT service, run_hash, number FROM revisions

-- name: latest_revisions
SELECT service, max(number) FROM revisions GROUP BY service

-- name: put_revision
INSERT INTO revisions (service, number, run_hash, content, secrets, created_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (service, run_hash) DO UPDATE SET secrets = excluded.secrets, content = excluded.content

-- name: contents
SELECT r.service, r.number, r.content, r.secrets
FROM json_each(?) AS pair
JOIN revisions AS r
  ON r.service = json_extract(pair.value, '$[0]') AND r.number = json_extract(pair.value, '$[1]')

-- name: secrets
SELECT DISTINCT secret.value FROM revisions, json_each(revisions.secrets) AS secret

-- name: put_policy
INSERT INTO policies (digest, policy) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING

-- name: policies
SELECT digest, policy FROM policies WHERE digest IN (SELECT value FROM json_each(?))

-- name: insert_deployment
INSERT INTO deployments (
    number, kind, status, forced, rollback_on_failure, started_at, who, origin, environment, services, before, after, plan, settings)
VALUES (
    (SELECT coalesce(max(number), 0) + 1 FROM deployments), :kind, 'in_progress', :forced, :rollback_on_failure,
    :started_at, :who, :origin, :environment, :services, :before, :after, :plan, :settings)
RETURNING number

-- name: update_after
UPDATE deployments SET after = :after WHERE number = :number

-- name: set_plan
UPDATE deployments SET plan = :plan WHERE number = :number

-- name: finish_deployment
UPDATE deployments
SET status = :status, good = :good, report = :report, finished_at = :finished_at,
    final = coalesce(:final, CASE :status WHEN 'rolled_back' THEN before ELSE after END)
WHERE number = :number

-- name: deployment
SELECT * FROM deployments WHERE number = ?

-- name: running_deployment
SELECT * FROM deployments WHERE status = 'in_progress' ORDER BY number DESC LIMIT 1

-- name: last_deployment
SELECT * FROM deployments ORDER BY number DESC LIMIT 1

-- name: last_good
SELECT * FROM deployments WHERE good AND (:before IS NULL OR number < :before) ORDER BY number DESC LIMIT 1

-- name: deployments
SELECT * FROM deployments ORDER BY number DESC LIMIT ?

-- name: current_map
SELECT coalesce(final, before) FROM deployments ORDER BY number DESC LIMIT 1

-- name: put_step
INSERT INTO steps (deployment, position, step, cause, started_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (deployment, position) DO UPDATE
SET step = excluded.step, cause = excluded.cause, started_at = excluded.started_at, finished_at = NULL, error = ''

-- name: end_step
UPDATE steps SET finished_at = ?, error = ? WHERE deployment = ? AND position = ?

-- name: steps
SELECT position, step, cause, started_at, finished_at, error FROM steps WHERE deployment = ? ORDER BY position

-- name: put_event
INSERT INTO events (at, deployment, service, name, text, who) VALUES (?, ?, ?, ?, ?, ?)

-- name: events
SELECT * FROM (
    SELECT at, 'engine' AS source, id, deployment, service, name, text, who FROM events
    WHERE id > :engine AND at >= :since AND (:service IS NULL OR service = :service)
    UNION ALL
    SELECT at, 'agent', id, deployment, service, name, text, '' FROM agent_events
    WHERE id > :agent AND at >= :since AND (:service IS NULL OR service = :service)
    ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT :limit
) ORDER BY 1, 2, 3

-- name: revisions
SELECT service, number FROM revisions ORDER BY service, number

-- name: forget_revision
DELETE FROM revisions WHERE service = ? AND number = ?

-- name: images
SELECT id, facts FROM images WHERE id IN (SELECT value FROM json_each(?))

-- name: image_ids
SELECT id FROM images

-- name: put_image
INSERT INTO images (id, facts) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET facts = excluded.facts

-- name: forget_image
DELETE FROM images WHERE id = ?

-- name: good_maps
SELECT coalesce(final, before) FROM deployments WHERE good ORDER BY number DESC LIMIT ?

-- name: resolved_get
SELECT project FROM resolved WHERE digest = ?

-- name: resolved_put
INSERT INTO resolved (digest, project, used_at) VALUES (:digest, :project, :used_at)
ON CONFLICT (digest) DO UPDATE SET project = excluded.project, used_at = excluded.used_at

-- name: resolved_prune
DELETE FROM resolved WHERE digest NOT IN (SELECT digest FROM resolved ORDER BY used_at DESC LIMIT :keep)

-- name: instances
SELECT state FROM instances ORDER BY service, revision, uuid

-- name: wanted
SELECT service, revision, replicas, policy, deployment, settled FROM wanted ORDER BY service, revision

-- name: circuits
SELECT protects, state, retry_at, reason FROM circuits ORDER BY protects

-- name: one_shots
SELECT service, run_hash, outcome, exit_code, started_at, finished_at FROM one_shots ORDER BY started_at

-- name: completed_one_shots
SELECT service, run_hash FROM one_shots WHERE outcome = 'completed'
