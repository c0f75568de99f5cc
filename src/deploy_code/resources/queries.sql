-- name: do_not_wait_for_the_disk
PRAGMA synchronous = NORMAL

-- name: owners
SELECT id, name, is_project, pid, start_time, boot_id FROM owners

-- name: put_owner
INSERT INTO owners (id, name, is_project, pid, start_time, boot_id) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name,
    pid = excluded.pid, start_time = excluded.start_time, boot_id = excluded.boot_id

-- name: meet_owner
INSERT INTO owners (id, name, is_project, pid, start_time, boot_id) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING

-- name: end_claim
UPDATE owners SET pid = 0 WHERE id = ? AND is_project

-- name: drop_idle_owners
DELETE FROM owners WHERE id NOT IN (SELECT owner FROM promises) AND id NOT IN (SELECT owner FROM devices)
    AND id NOT IN (SELECT owner FROM ports)

-- name: drop_owner
DELETE FROM owners WHERE id = ?

-- name: promises
SELECT owner, service, stage, cpu_cores, memory_mb, storage_gb, gpu_count, folders, disk, made_at FROM promises
ORDER BY owner, service, stage DESC

-- name: owns
SELECT 1 FROM promises WHERE owner = ? AND stage <> 'allocated' LIMIT 1

-- name: put_promise
INSERT INTO promises (owner, service, stage, cpu_cores, memory_mb, storage_gb, gpu_count, folders, disk, made_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: drop_promises
DELETE FROM promises WHERE owner = ?

-- name: drop_stage
DELETE FROM promises WHERE owner = ? AND stage = ?

-- name: drop_allocated
DELETE FROM promises WHERE owner = ? AND service = ? AND stage = 'allocated'

-- name: devices
SELECT number, owner, service, allocated, revision, instance FROM devices ORDER BY number

-- name: put_device
INSERT INTO devices (number, owner, service, allocated) VALUES (?, ?, ?, ?)

-- name: give_device
UPDATE devices SET revision = ?, instance = ? WHERE number = ?

-- name: drop_device
DELETE FROM devices WHERE number = ?

-- name: drop_devices
DELETE FROM devices WHERE owner = ?

-- name: drop_allocated_devices
DELETE FROM devices WHERE owner = ? AND service = ? AND allocated

-- name: ports
SELECT number, owner FROM ports

-- name: ports_of
SELECT number FROM ports WHERE owner = ?

-- name: put_port
INSERT INTO ports (number, owner) VALUES (?, ?) ON CONFLICT (number) DO NOTHING

-- name: drop_ports
DELETE FROM ports WHERE owner = ?
