; The fork-join pool: see threads.py, which fills in what begins with a dollar sign.

%Job = type { ptr, ptr, i64, i64, i64, [88 x i8] }
%Range = type { i64, [120 x i8] }
@pool_word = global { i64, [120 x i8] } zeroinitializer, align 128
@pool_ranges = internal global [$MAX_THREADS x %Range] zeroinitializer, align 128
; fn, env, chunks, chunks a group, threads that may take part
@pool_job = internal global %Job zeroinitializer, align 128
@pool_done = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_sleepers = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_busy = internal global { i64, [120 x i8] } zeroinitializer, align 128
@pool_workers = internal global i64 0, align 128
@pool_stopping = internal global i64 0
@pool_identity = internal global [$MAX_THREADS x i64] zeroinitializer
@pool_threads = global i64 1, align 128
; Launches that run without the GIL, and thus rely on the number of threads staying as it is.
@pool_inflight = global { i64, [120 x i8] } zeroinitializer, align 128

$DECLARE_PAUSE
$DECLARE_SLEEP
declare i32 @sched_yield()
declare i64 @pthread_self()
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; Claim groups and run them until none is left: those of the own range, then those of the others.
define internal void @drain(i64 %tid) {
entry:
  br label %visit
visit:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %empty ]
  %threads = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 4) monotonic, align 8
  %some = icmp ult i64 %turn, %threads
  br i1 %some, label %choose, label %out
choose:
  %ahead = add i64 %tid, %turn
  %owner = urem i64 %ahead, %threads
  %range = getelementptr %Range, ptr @pool_ranges, i64 %owner
  br label %look
look:
  %word = load atomic i64, ptr %range acquire, align 8
  %group = and i64 %word, 65535
  %upper = lshr i64 %word, 16
  %end = and i64 %upper, 65535
  %open = icmp ult i64 %group, %end
  br i1 %open, label %read, label %empty
empty:
  %turn1 = add i64 %turn, 1
  br label %visit
read:
  %fn = load atomic ptr, ptr @pool_job monotonic, align 8
  %env = load atomic ptr, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 1) monotonic, align 8
  %n = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 2) monotonic, align 8
  %per = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 3) monotonic, align 8
  %most = load atomic i64, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 4) monotonic, align 8
  %member = icmp ult i64 %tid, %most
  br i1 %member, label %claim, label %out
claim:
  %next = add i64 %word, 1
  %swap = cmpxchg ptr %range, i64 %word, i64 %next acq_rel monotonic
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %run, label %look
run:
  %first = mul i64 %group, %per
  %beyond = add i64 %first, %per
  %last = call i64 @llvm.umin.i64(i64 %beyond, i64 %n)
  br label %chunks
chunks:
  %chunk = phi i64 [ %first, %run ], [ %following, %chunks ]
  call void %fn(ptr %env, i64 %chunk, i64 %tid)
  %following = add i64 %chunk, 1
  %more = icmp ult i64 %following, %last
  br i1 %more, label %chunks, label %finished
finished:
  %count = atomicrmw add ptr @pool_done, i64 1 release
  br label %look
out:
  ret void
}

define internal ptr @worker(ptr %number) {
entry:
  %tid = ptrtoint ptr %number to i64
  br label %work
work:
  ; The generation is read before draining: what is published meanwhile is seen as a change.
  %word = load atomic i64, ptr @pool_word acquire, align 8
  %generation = lshr i64 %word, 32
  %stopping = load atomic i64, ptr @pool_stopping acquire, align 8
  %stop = icmp ne i64 %stopping, 0
  br i1 %stop, label %leave, label %busy
busy:
  call void @drain(i64 %tid)
  br label %spin
spin:
  %turn = phi i64 [ 0, %busy ], [ %turn1, %pause ]
  %seen = load atomic i64, ptr @pool_word acquire, align 8
  %now = lshr i64 %seen, 32
  %changed = icmp ne i64 %now, %generation
  br i1 %changed, label %work, label %pause
pause:
  $PAUSE
  %turn1 = add i64 %turn, 1
  %again = icmp ult i64 %turn1, $IDLE_SPINS
  br i1 %again, label %spin, label %rest
rest:
  %s = atomicrmw add ptr @pool_sleepers, i64 1 seq_cst
  br label %sleep
sleep:
  %seen_asleep = load atomic i64, ptr @pool_word seq_cst, align 8
  %now_asleep = lshr i64 %seen_asleep, 32
  %stirred = icmp ne i64 %now_asleep, %generation
  br i1 %stirred, label %awake, label %doze
doze:
  %old = trunc i64 %generation to i32
  $SLEEP
  br label %sleep
awake:
  %t = atomicrmw sub ptr @pool_sleepers, i64 1 seq_cst
  br label %work
leave:
  %left = atomicrmw add ptr @pool_done, i64 1 release
  ret ptr null
}

; Publish %groups groups as a new generation, in equal ranges, and wake up to %wanted sleepers.
define internal void @publish(i64 %groups, i64 %threads, i64 %wanted) {
entry:
  store atomic i64 0, ptr @pool_done monotonic, align 8
  %word = load atomic i64, ptr @pool_word monotonic, align 8
  %generation = lshr i64 %word, 32
  %next = add i64 %generation, 1
  %new = shl i64 %next, 32
  %owners = call i64 @llvm.umin.i64(i64 %groups, i64 %threads)
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %i1, %share ]
  %start = phi i64 [ 0, %entry ], [ %end, %share ]
  %more = icmp ult i64 %i, %owners
  br i1 %more, label %share, label %tell
share:
  %i1 = add i64 %i, 1
  %scaled = mul i64 %groups, %i1
  %end = udiv i64 %scaled, %owners
  %middle = shl i64 %end, 16
  %bounds = or i64 %middle, %start
  %range_word = or i64 %new, %bounds
  %range = getelementptr %Range, ptr @pool_ranges, i64 %i
  store atomic i64 %range_word, ptr %range release, align 8
  br label %test
tell:
  store atomic i64 %new, ptr @pool_word seq_cst, align 8
  %sleepers = load atomic i64, ptr @pool_sleepers seq_cst, align 8
  %any = icmp ne i64 %sleepers, 0
  br i1 %any, label %wake, label %out
wake:
  %count = trunc i64 %wanted to i32
  $WAKE
  br label %out
out:
  ret void
}

; Wait until %goal groups are done; let others run when it takes long.
define internal void @join(i64 %goal) {
entry:
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %pause ], [ %turn, %yield ]
  %done = load atomic i64, ptr @pool_done acquire, align 8
  %all = icmp uge i64 %done, %goal
  br i1 %all, label %out, label %wait
wait:
  %patient = icmp ult i64 %turn, $SPINS
  br i1 %patient, label %pause, label %yield
pause:
  $PAUSE
  %turn1 = add i64 %turn, 1
  br label %look
yield:
  %y = call i32 @sched_yield()
  br label %look
out:
  ret void
}

; Create the workers that are missing; called by the owner of @pool_busy.
define internal void @recruit(i64 %threads) noinline {
entry:
  %attributes = alloca [128 x i8], align 16
  %every = alloca [128 x i8], align 16
  %before = alloca [128 x i8], align 16
  %a = call i32 @pthread_attr_init(ptr %attributes)
  %b = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 $STACK_BYTES)
  %c = call i32 @sigfillset(ptr %every)
  %d = call i32 @pthread_sigmask(i32 $SIG_SETMASK, ptr %every, ptr %before)
  br label %look
look:
  %have = load i64, ptr @pool_workers
  %tid = add i64 %have, 1
  %enough = icmp uge i64 %tid, %threads
  br i1 %enough, label %out, label %create
create:
  %identity = getelementptr i64, ptr @pool_identity, i64 %tid
  %number = inttoptr i64 %tid to ptr
  %error = call i32 @pthread_create(ptr %identity, ptr %attributes, ptr @worker, ptr %number)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %out, label %created
created:
  %thread = load i64, ptr %identity
  %e = call i32 @pthread_detach(i64 %thread)
  store i64 %tid, ptr @pool_workers
  br label %look
out:
  %f = call i32 @pthread_sigmask(i32 $SIG_SETMASK, ptr %before, ptr null)
  %g = call i32 @pthread_attr_destroy(ptr %attributes)
  ret void
}

define internal i1 @try_lock() alwaysinline {
  %swap = cmpxchg ptr @pool_busy, i64 0, i64 1 acquire monotonic
  %got = extractvalue { i64, i1 } %swap, 1
  ret i1 %got
}

; The number under which the calling thread runs: its own for a worker, 0 for all others.
define internal i64 @own_number() {
entry:
  %self = call i64 @pthread_self()
  %workers = load atomic i64, ptr @pool_workers monotonic, align 8
  br label %look
look:
  %tid = phi i64 [ %workers, %entry ], [ %before, %next ]
  %end = icmp eq i64 %tid, 0
  br i1 %end, label %out, label %compare
compare:
  %at = getelementptr i64, ptr @pool_identity, i64 %tid
  %identity = load atomic i64, ptr %at monotonic, align 8
  %same = icmp eq i64 %identity, %self
  br i1 %same, label %out, label %next
next:
  %before = sub i64 %tid, 1
  br label %look
out:
  ret i64 %tid
}

define void @pool_parallel(ptr %fn, ptr %env, i64 %n) {
entry:
  %threads = load atomic i64, ptr @pool_threads monotonic, align 8
  %few_threads = icmp ule i64 %threads, 1
  %few_chunks = icmp sle i64 %n, 1
  %few = or i1 %few_threads, %few_chunks
  br i1 %few, label %alone, label %lock
lock:
  %got = call i1 @try_lock()
  br i1 %got, label %hire, label %alone
hire:
  %workers = load i64, ptr @pool_workers
  %whole = add i64 %workers, 1
  %short = icmp ult i64 %whole, %threads
  br i1 %short, label %missing, label %submit
missing:
  call void @recruit(i64 %threads)
  br label %submit
submit:
  ; More chunks than a word can count are claimed in groups.
  %over = add i64 %n, 65534
  %per = udiv i64 %over, 65535
  %rest = sub i64 %per, 1
  %padded = add i64 %n, %rest
  %groups = udiv i64 %padded, %per
  store atomic ptr %fn, ptr @pool_job monotonic, align 8
  store atomic ptr %env, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 1) monotonic, align 8
  store atomic i64 %n, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 2) monotonic, align 8
  store atomic i64 %per, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 3) monotonic, align 8
  store atomic i64 %threads, ptr getelementptr (%Job, ptr @pool_job, i32 0, i32 4) monotonic, align 8
  %others = sub i64 %groups, 1
  call void @publish(i64 %groups, i64 %threads, i64 %others)
  call void @drain(i64 0)
  call void @join(i64 %groups)
  store atomic i64 0, ptr @pool_busy release, align 8
  ret void
alone:
  %busy = load atomic i64, ptr @pool_busy monotonic, align 8
  %idle = icmp eq i64 %busy, 0
  br i1 %idle, label %start, label %nested
nested:
  %own = call i64 @own_number()
  br label %start
start:
  %tid = phi i64 [ 0, %alone ], [ %own, %nested ]
  br label %test
test:
  %chunk = phi i64 [ 0, %start ], [ %following, %run ]
  %more = icmp slt i64 %chunk, %n
  br i1 %more, label %run, label %out
run:
  call void %fn(ptr %env, i64 %chunk, i64 %tid)
  %following = add i64 %chunk, 1
  br label %test
out:
  ret void
}

; Change the number of threads, when nothing runs. The workers end; new ones come when needed.
define void @pool_resize(i64 %threads) {
entry:
  br label %look
look:
  %inflight = load atomic i64, ptr @pool_inflight acquire, align 8
  %quiet = icmp eq i64 %inflight, 0
  br i1 %quiet, label %lock, label %wait
wait:
  %y = call i32 @sched_yield()
  br label %look
lock:
  %got = call i1 @try_lock()
  br i1 %got, label %stop, label %wait
stop:
  %workers = load i64, ptr @pool_workers
  store atomic i64 1, ptr @pool_stopping release, align 8
  call void @publish(i64 0, i64 0, i64 $MAX_THREADS)
  call void @join(i64 %workers)
  store atomic i64 0, ptr @pool_stopping release, align 8
  store i64 0, ptr @pool_workers
  store atomic i64 %threads, ptr @pool_threads monotonic, align 8
  store atomic i64 0, ptr @pool_busy release, align 8
  ret void
}

; In the child of a fork: there are no workers and nobody submits.
define void @pool_reset() {
  store i64 0, ptr @pool_workers
  store i64 0, ptr @pool_sleepers
  store i64 0, ptr @pool_stopping
  store i64 0, ptr @pool_inflight
  call void @llvm.memset.p0.i64(ptr @pool_ranges, i8 0, i64 $RANGES_BYTES, i1 false)
  store i64 0, ptr @pool_busy
  ret void
}
