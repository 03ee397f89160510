; Storage: see storage.py, which fills in what begins with a dollar sign.
; After the object's header: +0 data, +8 nbytes, +16 version, +24 owner (or, in a free list, the
; next block), +32 size class, +40 list of weak references. The data begin at 64.

%Storage = type { [$HEADER x i8], ptr, i64, i64, ptr, i64, ptr }
@storage_lists = global [320 x ptr] zeroinitializer
@storage_type = global ptr null
@storage_fail = global ptr null
; Four groups of (current, peak, total), then retries, failures, limit of the free lists.
@storage_stats = global [16 x i64] zeroinitializer

declare ptr @PyObject_Init(ptr, ptr)
declare void @PyObject_ClearWeakRefs(ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare ptr @PyLong_FromLongLong(i64)
declare i64 @PyLong_AsLongLong(ptr)
declare void @PyErr_Clear()
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare i32 @PyBuffer_FillInfo(ptr, ptr, ptr, i64, i32, i32)
declare i32 @posix_memalign(ptr, i64, i64)
declare void @free(ptr)
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
$DECLARE_ADVICE
@_Py_NoneStruct = external global i8

define internal void @count(i64 %group, i64 %amount) alwaysinline {
  %at = mul i64 %group, 3
  %current_at = getelementptr i64, ptr @storage_stats, i64 %at
  %peak_at = getelementptr i64, ptr %current_at, i64 1
  %total_at = getelementptr i64, ptr %current_at, i64 2
  %current = load i64, ptr %current_at
  %now = add i64 %current, %amount
  store i64 %now, ptr %current_at
  %peak = load i64, ptr %peak_at
  %new_peak = call i64 @llvm.smax.i64(i64 %peak, i64 %now)
  store i64 %new_peak, ptr %peak_at
  %total = load i64, ptr %total_at
  %gain = call i64 @llvm.smax.i64(i64 %amount, i64 0)
  %new_total = add i64 %total, %gain
  store i64 %new_total, ptr %total_at
  ret void
}

; In units of 64 bytes: v = units - 1; s halvings bring v below 16; 8 classes a doubling.
define internal i64 @class_shift(i64 %v) alwaysinline {
  %least = or i64 %v, 8
  %zeros = call i64 @llvm.ctlz.i64(i64 %least, i1 true)
  %shift = sub i64 60, %zeros
  ret i64 %shift
}

define internal i64 @class_of(i64 %nbytes) alwaysinline {
  %some = call i64 @llvm.umax.i64(i64 %nbytes, i64 1)
  %last = sub i64 %some, 1
  %v = lshr i64 %last, 6
  %shift = call i64 @class_shift(i64 %v)
  %step = lshr i64 %v, %shift
  %base = shl i64 %shift, 3
  %class = add i64 %base, %step
  ret i64 %class
}

define internal i64 @class_bytes(i64 %class) alwaysinline {
  %octave = lshr i64 %class, 3
  %above = sub i64 %octave, 1
  %shift = call i64 @llvm.smax.i64(i64 %above, i64 0)
  %base = shl i64 %shift, 3
  %step = sub i64 %class, %base
  %units = add i64 %step, 1
  %scale = add i64 %shift, 6
  %bytes = shl i64 %units, %scale
  ret i64 %bytes
}

define i64 @storage_class_bytes(i64 %nbytes) {
  %class = call i64 @class_of(i64 %nbytes)
  %bytes = call i64 @class_bytes(i64 %class)
  ret i64 %bytes
}

; Give every block of every free list back to the system.
define void @storage_empty() {
entry:
  br label %lists
lists:
  %class = phi i64 [ 0, %entry ], [ %next_class, %done ]
  %list = getelementptr ptr, ptr @storage_lists, i64 %class
  %bytes = call i64 @class_bytes(i64 %class)
  %whole = add i64 %bytes, 64
  %negative = sub i64 0, %whole
  %first = load ptr, ptr %list
  store ptr null, ptr %list
  br label %blocks
blocks:
  %block = phi ptr [ %first, %lists ], [ %after, %release ]
  %none = icmp eq ptr %block, null
  br i1 %none, label %done, label %release
release:
  %next_at = getelementptr %Storage, ptr %block, i32 0, i32 4
  %after = load ptr, ptr %next_at
  call void @free(ptr %block)
  call void @count(i64 1, i64 %negative)
  call void @count(i64 3, i64 -1)
  br label %blocks
done:
  %next_class = add i64 %class, 1
  %more = icmp ult i64 %next_class, 320
  br i1 %more, label %lists, label %out
out:
  ret void
}

define internal ptr @fresh(i64 %class) noinline {
entry:
  %slot = alloca ptr
  %bytes = call i64 @class_bytes(i64 %class)
  %whole = add i64 %bytes, 64
  %huge = icmp uge i64 %whole, $HUGE_BYTES
  %align = select i1 %huge, i64 $HUGE_PAGE, i64 64
  br label %try
try:
  %retried = phi i1 [ false, %entry ], [ true, %retry ]
  %error = call i32 @posix_memalign(ptr %slot, i64 %align, i64 %whole)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %refused, label %got
refused:
  br i1 %retried, label %give_up, label %retry
retry:
  %retries_at = getelementptr i64, ptr @storage_stats, i64 $RETRIES
  %retries = load i64, ptr %retries_at
  %retries1 = add i64 %retries, 1
  store i64 %retries1, ptr %retries_at
  call void @storage_empty()
  br label %try
give_up:
  ret ptr null
got:
  %block = load ptr, ptr %slot
  br i1 %huge, label %advise, label %ready
advise:
  $ADVISE
  br label %ready
ready:
  call void @count(i64 1, i64 %whole)
  call void @count(i64 3, i64 1)
  ret ptr %block
}

; Call the Python function that raises, with the size asked for.
define internal ptr @refuse(i64 %nbytes) noinline {
  %ooms_at = getelementptr i64, ptr @storage_stats, i64 $OOMS
  %ooms = load i64, ptr %ooms_at
  %ooms1 = add i64 %ooms, 1
  store i64 %ooms1, ptr %ooms_at
  %size = call ptr @PyLong_FromLongLong(i64 %nbytes)
  %fail = load ptr, ptr @storage_fail
  %raised = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %fail, ptr %size, ptr null)
  call void @Py_DecRef(ptr %size)
  ret ptr null
}

; A Storage of nbytes, with one reference; null with an exception set.
define ptr @storage_new(i64 %nbytes) {
entry:
  %sane = icmp ule i64 %nbytes, $MAX_BYTES
  br i1 %sane, label %look, label %refused
refused:
  %nothing = call ptr @refuse(i64 %nbytes)
  ret ptr null
look:
  %class = call i64 @class_of(i64 %nbytes)
  %list = getelementptr ptr, ptr @storage_lists, i64 %class
  %first = load ptr, ptr %list
  %empty = icmp eq ptr %first, null
  br i1 %empty, label %search, label %take
search:
  ; A larger block that is free is better than a new one, if it is worth it and not much larger.
  %worth = icmp uge i64 %nbytes, $BORROWED_BYTES
  %reach = select i1 %worth, i64 $REACH, i64 0
  %furthest = add i64 %class, %reach
  br label %step
step:
  %tried = phi i64 [ %class, %search ], [ %larger, %larger_list ]
  %further = icmp ult i64 %tried, %furthest
  br i1 %further, label %larger_list, label %make
larger_list:
  %larger = add i64 %tried, 1
  %other_list = getelementptr ptr, ptr @storage_lists, i64 %larger
  %other = load ptr, ptr %other_list
  %none = icmp eq ptr %other, null
  br i1 %none, label %step, label %take
take:
  %taken = phi ptr [ %first, %look ], [ %other, %larger_list ]
  %taken_list = phi ptr [ %list, %look ], [ %other_list, %larger_list ]
  %taken_class = phi i64 [ %class, %look ], [ %larger, %larger_list ]
  %next_at = getelementptr %Storage, ptr %taken, i32 0, i32 4
  %next = load ptr, ptr %next_at
  store ptr %next, ptr %taken_list
  br label %fill
make:
  %made = call ptr @fresh(i64 %class)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %refused, label %fill
fill:
  %block = phi ptr [ %taken, %take ], [ %made, %make ]
  %own_class = phi i64 [ %taken_class, %take ], [ %class, %make ]
  %data = getelementptr i8, ptr %block, i64 64
  %data_at = getelementptr %Storage, ptr %block, i32 0, i32 1
  store ptr %data, ptr %data_at
  %nbytes_at = getelementptr %Storage, ptr %block, i32 0, i32 2
  store i64 %nbytes, ptr %nbytes_at
  %version_at = getelementptr %Storage, ptr %block, i32 0, i32 3
  store i64 0, ptr %version_at
  %owner_at = getelementptr %Storage, ptr %block, i32 0, i32 4
  store ptr null, ptr %owner_at
  %class_at = getelementptr %Storage, ptr %block, i32 0, i32 5
  store i64 %own_class, ptr %class_at
  %weak_at = getelementptr %Storage, ptr %block, i32 0, i32 6
  store ptr null, ptr %weak_at
  %bytes = call i64 @class_bytes(i64 %own_class)
  call void @count(i64 0, i64 %bytes)
  call void @count(i64 2, i64 1)
  %type = load ptr, ptr @storage_type
  %object = call ptr @PyObject_Init(ptr %block, ptr %type)
  ret ptr %object
}

define void @storage_dealloc(ptr %self) {
entry:
  %weak_at = getelementptr %Storage, ptr %self, i32 0, i32 6
  %weak = load ptr, ptr %weak_at
  %watched = icmp ne ptr %weak, null
  br i1 %watched, label %unwatch, label %owned
unwatch:
  call void @PyObject_ClearWeakRefs(ptr %self)
  br label %owned
owned:
  %owner_at = getelementptr %Storage, ptr %self, i32 0, i32 4
  %owner = load ptr, ptr %owner_at
  %foreign = icmp ne ptr %owner, null
  br i1 %foreign, label %disown, label %own
disown:
  call void @Py_DecRef(ptr %owner)
  br label %own
own:
  %class_at = getelementptr %Storage, ptr %self, i32 0, i32 5
  %class = load i64, ptr %class_at
  %bytes = call i64 @class_bytes(i64 %class)
  %less = sub i64 0, %bytes
  call void @count(i64 0, i64 %less)
  call void @count(i64 2, i64 -1)
  %allocated = load i64, ptr @storage_stats
  %reserved_at = getelementptr i64, ptr @storage_stats, i64 3
  %reserved = load i64, ptr %reserved_at
  %cached = sub i64 %reserved, %allocated
  %limit_at = getelementptr i64, ptr @storage_stats, i64 $LIMIT
  %limit = load i64, ptr %limit_at
  %full = icmp ugt i64 %cached, %limit
  br i1 %full, label %flush, label %keep
flush:
  call void @storage_empty()
  ; A block that alone outgrows the limit is not worth keeping either.
  %alone = icmp ugt i64 %bytes, %limit
  br i1 %alone, label %drop, label %keep
drop:
  %whole = add i64 %bytes, 64
  %less_reserved = sub i64 0, %whole
  call void @count(i64 1, i64 %less_reserved)
  call void @count(i64 3, i64 -1)
  call void @free(ptr %self)
  br label %out
keep:
  %list = getelementptr ptr, ptr @storage_lists, i64 %class
  %first = load ptr, ptr %list
  store ptr %first, ptr %owner_at
  store ptr %self, ptr %list
  br label %out
out:
  %type = load ptr, ptr @storage_type
  call void @Py_DecRef(ptr %type)
  ret void
}

define i32 @storage_buffer(ptr %self, ptr %view, i32 %flags) {
  %data_at = getelementptr %Storage, ptr %self, i32 0, i32 1
  %data = load ptr, ptr %data_at
  %nbytes_at = getelementptr %Storage, ptr %self, i32 0, i32 2
  %nbytes = load i64, ptr %nbytes_at
  %status = call i32 @PyBuffer_FillInfo(ptr %view, ptr %self, ptr %data, i64 %nbytes, i32 0,
                                        i32 %flags)
  ret i32 %status
}

; allocate(nbytes)
define ptr @storage_allocate(ptr %module, ptr %args, i64 %nargs) {
entry:
  %one = icmp eq i64 %nargs, 1
  br i1 %one, label %convert, label %miscalled
convert:
  %size = load ptr, ptr %args
  %nbytes = call i64 @PyLong_AsLongLong(ptr %size)
  %odd = icmp slt i64 %nbytes, 0
  br i1 %odd, label %refused, label %make
make:
  %made = call ptr @storage_new(i64 %nbytes)
  ret ptr %made
refused:
  call void @PyErr_Clear()
  br label %miscalled
miscalled:
  %given = phi ptr [ @_Py_NoneStruct, %entry ], [ %size, %refused ]
  %fail = load ptr, ptr @storage_fail
  %raised = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %fail, ptr %given, ptr null)
  ret ptr null
}

; A Storage over memory that owner keeps alive.
define ptr @storage_wrap(ptr %address, i64 %nbytes, ptr %owner) {
entry:
  %self = call ptr @storage_new(i64 0)
  %failed = icmp eq ptr %self, null
  br i1 %failed, label %out, label %fill
fill:
  %data_at = getelementptr %Storage, ptr %self, i32 0, i32 1
  store ptr %address, ptr %data_at
  %nbytes_at = getelementptr %Storage, ptr %self, i32 0, i32 2
  store i64 %nbytes, ptr %nbytes_at
  %owner_at = getelementptr %Storage, ptr %self, i32 0, i32 4
  store ptr %owner, ptr %owner_at
  call void @Py_IncRef(ptr %owner)
  br label %out
out:
  ret ptr %self
}
