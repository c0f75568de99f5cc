-- The statements of the agent: its own tables, and four looks at those of the engine.

-- name: project
SELECT name, log_dir FROM project WHERE id = 1

-- name: running_deployment
SELECT number FROM deployments WHERE status = 'in_progress' ORDER BY number DESC LIMIT 1

-- name: last_settings
SELECT settings FROM deployments ORDER BY number DESC LIMIT 1

-- name: revision_exists
SELECT 1 FROM revisions WHERE service = ? AND number = ?

-- name: wanted
SELECT w.service, w.revision, w.replicas, w.policy, w.deployment, w.settled, r.content, r.secrets
FROM wanted w JOIN revisions r ON r.service = w.service AND r.number = w.revision

-- name: put_wanted
INSERT INTO wanted (service, revision, replicas, policy, deployment, settled) VALUES (?, ?, ?, ?, ?, 0)
ON CONFLICT (service, revision) DO UPDATE SET
    replicas = excluded.replicas, policy = excluded.policy, deployment = excluded.deployment, settled = 0

-- name: drop_wanted
DELETE FROM wanted WHERE service = ? AND revision = ?

-- name: settle
UPDATE wanted SET settled = 1 WHERE settled = 0

-- name: instances
SELECT state FROM instances

-- name: unwanted_contents
SELECT service, number, content FROM revisions
WHERE (service, number) IN (SELECT service, revision FROM instances EXCEPT SELECT service, revision FROM wanted)

-- name: put_instance
INSERT INTO instances (uuid, service, revision, state) VALUES (?, ?, ?, ?)
ON CONFLICT (uuid) DO UPDATE SET state = excluded.state

-- name: drop_instance
DELETE FROM instances WHERE uuid = ?

-- name: drop_ended_instances
DELETE FROM instances WHERE service = ? AND revision = ?
AND json_extract(state, '$.phase') IN ('exited', 'failed', 'backoff')

-- name: drop_completed_instances
DELETE FROM instances WHERE service = ? AND revision = ? AND json_extract(state, '$.phase') = 'completed'

-- name: one_shot
SELECT outcome FROM one_shots WHERE service = ? AND run_hash = ?

-- name: forget_one_shot
DELETE FROM one_shots WHERE service = ? AND run_hash = ? AND outcome = 'completed'

-- name: begin_one_shot
INSERT INTO one_shots (service, run_hash, outcome, started_at) VALUES (?, ?, 'started', ?)
ON CONFLICT (service, run_hash) DO UPDATE SET
    outcome = 'started', exit_code = NULL, started_at = excluded.started_at, finished_at = NULL

-- name: end_one_shot
UPDATE one_shots SET outcome = ?, exit_code = ?, finished_at = ? WHERE service = ? AND run_hash = ?

-- name: forget_circuits
DELETE FROM circuits

-- name: drop_circuit
DELETE FROM circuits WHERE protects = ?

-- name: put_circuit
INSERT INTO circuits (protects, state, retry_at, reason) VALUES (?, ?, ?, ?)
ON CONFLICT (protects) DO UPDATE SET state = excluded.state, retry_at = excluded.retry_at, reason = excluded.reason

-- name: put_event
INSERT INTO agent_events (at, deployment, service, name, text) VALUES (?, ?, ?, ?, ?)

-- name: prune_events
DELETE FROM agent_events WHERE id <= (SELECT max(id) FROM agent_events) - ?
