; The launcher: see launch.py, which fills in what begins with a dollar sign.
; Plan, after the object's header: +0 its words, +8 the object that reports errors.

%Holder = type { [$HEADER x i8], ptr, ptr }
@launch_type = global ptr null
@launch_method = global ptr null
@launch_guarding = global ptr null
@launch_class = global ptr null
@facula_threads = external global i64
@facula_inflight = external global i64
@_Py_NoneStruct = external global i64

declare ptr @storage_new(i64)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Clear()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyType_GenericAlloc(ptr, i64)
declare i32 @PyType_IsSubtype(ptr, ptr)
declare ptr @PyLong_FromVoidPtr(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyLong_AsVoidPtr(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare double @PyFloat_AsDouble(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare ptr @PyBytes_AsString(ptr)
declare i64 @PyBytes_Size(ptr)
declare ptr @PyMem_Malloc(i64)
declare void @PyMem_Free(ptr)
declare ptr @PyErr_NoMemory()
declare i32 @PyErr_BadArgument()
declare void @PyObject_GC_UnTrack(ptr)
declare void @PyObject_GC_Del(ptr)
declare ptr @PyCFunction_NewEx(ptr, ptr, ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
$CLOCK

define internal i64 @field(ptr %plan, i64 %index) alwaysinline {
  %at = getelementptr i64, ptr %plan, i64 %index
  %value = load i64, ptr %at
  ret i64 %value
}

define internal ptr @section(ptr %plan, i64 %index) alwaysinline {
  %start = call i64 @field(ptr %plan, i64 %index)
  %at = getelementptr i64, ptr %plan, i64 %start
  ret ptr %at
}

define internal ptr @slot(ptr %object, i64 %offset) alwaysinline {
  %at = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %at
  ret ptr %value
}

; A tensor over a new storage, every slot filled; null with an exception set.
define internal ptr @make_tensor(ptr %class, i64 %nbytes, ptr %meta) {
entry:
  %storage = call ptr @storage_new(i64 %nbytes)
  %no_storage = icmp eq ptr %storage, null
  br i1 %no_storage, label %fail, label %number
number:
  %data = call ptr @slot(ptr %storage, i64 $HEADER)
  %address = call ptr @PyLong_FromVoidPtr(ptr %data)
  %no_address = icmp eq ptr %address, null
  br i1 %no_address, label %free_storage, label %object
object:
  %tensor = call ptr @PyType_GenericAlloc(ptr %class, i64 0)
  %no_tensor = icmp eq ptr %tensor, null
  br i1 %no_tensor, label %free_both, label %fill
fill:
  call void @Py_IncRef(ptr %meta)
  %storage_at = getelementptr i8, ptr %tensor, i64 $SLOT_STORAGE
  store ptr %storage, ptr %storage_at
  %address_at = getelementptr i8, ptr %tensor, i64 $SLOT_PTR
  store ptr %address, ptr %address_at
  %meta_at = getelementptr i8, ptr %tensor, i64 $SLOT_META
  store ptr %meta, ptr %meta_at
  $FILL_WITH_NONE
  ret ptr %tensor
free_both:
  call void @Py_DecRef(ptr %address)
  br label %free_storage
free_storage:
  call void @Py_DecRef(ptr %storage)
  br label %fail
fail:
  ret ptr null
}

; share(tensor, meta, byte offset): a tensor over the same storage.
define ptr @launch_share(ptr %module, ptr %args, i64 %nargs) {
entry:
  %class = load ptr, ptr @launch_class
  %three = icmp eq i64 %nargs, 3
  br i1 %three, label %look, label %wrong
look:
  %source = load ptr, ptr %args
  %right = call i1 @is_tensor(ptr %source, ptr %class)
  br i1 %right, label %read, label %wrong
read:
  %storage = call ptr @slot(ptr %source, i64 $SLOT_STORAGE)
  %number = call ptr @slot(ptr %source, i64 $SLOT_PTR)
  %no_storage = icmp eq ptr %storage, null
  %no_number = icmp eq ptr %number, null
  %without = or i1 %no_storage, %no_number
  br i1 %without, label %wrong, label %add
add:
  %meta_arg = getelementptr ptr, ptr %args, i64 1
  %meta = load ptr, ptr %meta_arg
  %offset_arg = getelementptr ptr, ptr %args, i64 2
  %offset_number = load ptr, ptr %offset_arg
  %offset = call i64 @PyLong_AsLongLong(ptr %offset_number)
  %start = call i64 @PyLong_AsLongLong(ptr %number)
  %error = call ptr @PyErr_Occurred()
  %odd = icmp ne ptr %error, null
  br i1 %odd, label %fail, label %make
make:
  %bits = add i64 %start, %offset
  %pointer = inttoptr i64 %bits to ptr
  %address = call ptr @PyLong_FromVoidPtr(ptr %pointer)
  %no_address = icmp eq ptr %address, null
  br i1 %no_address, label %fail, label %object
object:
  %tensor = call ptr @PyType_GenericAlloc(ptr %class, i64 0)
  %no_tensor = icmp eq ptr %tensor, null
  br i1 %no_tensor, label %free, label %fill
fill:
  call void @Py_IncRef(ptr %storage)
  call void @Py_IncRef(ptr %meta)
  %storage_at = getelementptr i8, ptr %tensor, i64 $SLOT_STORAGE
  store ptr %storage, ptr %storage_at
  %address_at = getelementptr i8, ptr %tensor, i64 $SLOT_PTR
  store ptr %address, ptr %address_at
  %meta_at = getelementptr i8, ptr %tensor, i64 $SLOT_META
  store ptr %meta, ptr %meta_at
  $FILL_WITH_NONE
  ret ptr %tensor
free:
  call void @Py_DecRef(ptr %address)
  br label %fail
wrong:
  %raised = call i32 @PyErr_BadArgument()
  br label %fail
fail:
  ret ptr null
}

; Drop a row of references.
define internal void @drop(ptr %row, i64 %n) {
entry:
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %one ], [ %next, %free ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %out
look:
  %at = getelementptr ptr, ptr %row, i64 %i
  %object = load ptr, ptr %at
  %next = add i64 %i, 1
  %none = icmp eq ptr %object, null
  br i1 %none, label %one, label %free
one:
  br label %test
free:
  call void @Py_DecRef(ptr %object)
  br label %test
out:
  ret void
}

; Make all outputs and note their addresses; false with an exception set.
define internal i1 @make_outputs(ptr %plan, ptr %outputs, ptr %values) {
entry:
  %class_word = call i64 @field(ptr %plan, i64 $TENSOR)
  %class = inttoptr i64 %class_word to ptr
  %n = call i64 @field(ptr %plan, i64 $NOUTS)
  %described = call ptr @section(ptr %plan, i64 $OUTS)
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %made ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %make, label %good
make:
  %first = shl i64 %i, 1
  %nbytes = call i64 @field(ptr %described, i64 %first)
  %second = or i64 %first, 1
  %meta_word = call i64 @field(ptr %described, i64 %second)
  %meta = inttoptr i64 %meta_word to ptr
  %tensor = call ptr @make_tensor(ptr %class, i64 %nbytes, ptr %meta)
  %failed = icmp eq ptr %tensor, null
  br i1 %failed, label %undo, label %made
made:
  %output_at = getelementptr ptr, ptr %outputs, i64 %i
  store ptr %tensor, ptr %output_at
  %storage = call ptr @slot(ptr %tensor, i64 $SLOT_STORAGE)
  %data = call ptr @slot(ptr %storage, i64 $HEADER)
  %value_at = getelementptr ptr, ptr %values, i64 %i
  store ptr %data, ptr %value_at
  %next = add i64 %i, 1
  br label %test
undo:
  call void @drop(ptr %outputs, i64 %i)
  ret i1 false
good:
  ret i1 true
}

define internal i1 @is_tensor(ptr %object, ptr %class) alwaysinline {
entry:
  %type = call ptr @slot(ptr %object, i64 $TYPE_AT)
  %same = icmp eq ptr %type, %class
  br i1 %same, label %out, label %ask
ask:
  %answer = call i32 @PyType_IsSubtype(ptr %type, ptr %class)
  %derived = icmp ne i32 %answer, 0
  br label %out
out:
  %yes = phi i1 [ true, %entry ], [ %derived, %ask ]
  ret i1 %yes
}

; Convert all arguments to values; the index of the first wrong one, or -1.
define internal i64 @read_arguments(ptr %plan, ptr %args, ptr %values) {
entry:
  %class_word = call i64 @field(ptr %plan, i64 $TENSOR)
  %class = inttoptr i64 %class_word to ptr
  %n = call i64 @field(ptr %plan, i64 $NARGS)
  %kinds = getelementptr i64, ptr %plan, i64 $HEAD
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %store ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %good
look:
  %arg_at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg_at
  %kind = call i64 @field(ptr %kinds, i64 %i)
  switch i64 %kind, label %tensor [ i64 1, label %float i64 2, label %int ]
tensor:
  %right = call i1 @is_tensor(ptr %arg, ptr %class)
  br i1 %right, label %address, label %wrong
address:
  %number = call ptr @slot(ptr %arg, i64 $SLOT_PTR)
  %unset = icmp eq ptr %number, null
  br i1 %unset, label %wrong, label %convert
convert:
  %pointer = call ptr @PyLong_AsVoidPtr(ptr %number)
  %pointer_bits = ptrtoint ptr %pointer to i64
  %null = icmp eq ptr %pointer, null
  br i1 %null, label %doubt, label %store
float:
  %real = call double @PyFloat_AsDouble(ptr %arg)
  %real_bits = bitcast double %real to i64
  %minus_one = fcmp oeq double %real, -1.0
  br i1 %minus_one, label %doubt, label %store
int:
  %integer = call i64 @PyLong_AsLongLong(ptr %arg)
  %minus = icmp eq i64 %integer, -1
  br i1 %minus, label %doubt, label %store
doubt:
  ; The result that also tells an error: ask whether it does.
  %doubtful = phi i64 [ %pointer_bits, %convert ], [ %real_bits, %float ], [ %integer, %int ]
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %store, label %clear
store:
  %value = phi i64 [ %pointer_bits, %convert ], [ %real_bits, %float ], [ %integer, %int ],
                   [ %doubtful, %doubt ]
  %value_at = getelementptr i64, ptr %values, i64 %i
  store i64 %value, ptr %value_at
  %next = add i64 %i, 1
  br label %test
clear:
  call void @PyErr_Clear()
  br label %wrong
wrong:
  ret i64 %i
good:
  ret i64 -1
}

; Raise the versions of the storages that will change; the index of an argument without, or -1.
define internal i64 @raise_versions(ptr %plan, ptr %args) {
entry:
  %n = call i64 @field(ptr %plan, i64 $NMUTATED)
  %type_word = call i64 @field(ptr %plan, i64 $STORAGE)
  %type = inttoptr i64 %type_word to ptr
  %indices = call ptr @section(ptr %plan, i64 $MUTATED)
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %raise ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %good
look:
  %index = call i64 @field(ptr %indices, i64 %i)
  %arg_at = getelementptr ptr, ptr %args, i64 %index
  %arg = load ptr, ptr %arg_at
  %storage = call ptr @slot(ptr %arg, i64 $SLOT_STORAGE)
  %unset = icmp eq ptr %storage, null
  br i1 %unset, label %wrong, label %check
check:
  %own = call ptr @slot(ptr %storage, i64 $TYPE_AT)
  %right = icmp eq ptr %own, %type
  br i1 %right, label %raise, label %wrong
raise:
  %version_at = getelementptr i8, ptr %storage, i64 $VERSION_AT
  %version = load i64, ptr %version_at
  %raised = add i64 %version, 1
  store i64 %raised, ptr %version_at
  %next = add i64 %i, 1
  br label %test
wrong:
  ret i64 %index
good:
  ret i64 -1
}

; Take references to the storages of all tensor arguments.
define internal void @pin(ptr %plan, ptr %args, ptr %pins) {
entry:
  %n = call i64 @field(ptr %plan, i64 $NARGS)
  %kinds = getelementptr i64, ptr %plan, i64 $HEAD
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %note ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %out
look:
  %kind = call i64 @field(ptr %kinds, i64 %i)
  %tensor = icmp eq i64 %kind, 0
  br i1 %tensor, label %find, label %note
find:
  %arg_at = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg_at
  %found = call ptr @slot(ptr %arg, i64 $SLOT_STORAGE)
  %unset = icmp eq ptr %found, null
  br i1 %unset, label %note, label %hold
hold:
  call void @Py_IncRef(ptr %found)
  br label %note
note:
  %storage = phi ptr [ null, %look ], [ null, %find ], [ %found, %hold ]
  %pin_at = getelementptr ptr, ptr %pins, i64 %i
  store ptr %storage, ptr %pin_at
  %next = add i64 %i, 1
  br label %test
out:
  ret void
}

; Run the steps, each an address, a number of words, their sources and their offsets; the status
; of the last one that ran, its index to %index_out. The observed variant notes the time before the
; first step and after each: see observed.ll.
define internal i64 @run_steps(ptr %plan, ptr %values, ptr %block, ptr %index_out) {
entry:
  %n = call i64 @field(ptr %plan, i64 $NSTEPS)
  %steps = call ptr @section(ptr %plan, i64 $STEPS)
  $NOTE_START
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %run ]
  %at = phi ptr [ %steps, %entry ], [ %at_next, %run ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %prepare, label %good
prepare:
  %kernel_word = load i64, ptr %at
  %nwords = call i64 @field(ptr %at, i64 1)
  %sources = getelementptr i64, ptr %at, i64 2
  %offsets = getelementptr i64, ptr %sources, i64 %nwords
  br label %words_test
words_test:
  %w = phi i64 [ 0, %prepare ], [ %w_next, %word ]
  %more_words = icmp ult i64 %w, %nwords
  br i1 %more_words, label %word, label %run
word:
  %source = call i64 @field(ptr %sources, i64 %w)
  %offset = call i64 @field(ptr %offsets, i64 %w)
  %value = call i64 @field(ptr %values, i64 %source)
  %sum = add i64 %value, %offset
  %word_at = getelementptr i64, ptr %block, i64 %w
  store i64 %sum, ptr %word_at
  %w_next = add i64 %w, 1
  br label %words_test
run:
  %kernel = inttoptr i64 %kernel_word to ptr
  %status = call i64 %kernel(ptr %block)
  %next = add i64 %i, 1
  $NOTE_STEP
  %at_next = getelementptr i64, ptr %offsets, i64 %nwords
  %failed = icmp ne i64 %status, 0
  br i1 %failed, label %bad, label %test
bad:
  store i64 %i, ptr %index_out
  ret i64 %status
good:
  ret i64 0
}

; A tuple of a row of references; %new says whether they are given away or shared.
define internal ptr @make_tuple(ptr %row, i64 %n, i1 %shared) {
entry:
  %tuple = call ptr @PyTuple_New(i64 %n)
  %failed = icmp eq ptr %tuple, null
  br i1 %failed, label %out, label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %set ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %out
look:
  %at = getelementptr ptr, ptr %row, i64 %i
  %object = load ptr, ptr %at
  br i1 %shared, label %share, label %set
share:
  call void @Py_IncRef(ptr %object)
  br label %set
set:
  %ok = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %object)
  %next = add i64 %i, 1
  br label %test
out:
  ret ptr %tuple
}

; Let Python raise what fits: calls report(problem, status, index, arguments).
define internal ptr @complain(ptr %self, i64 %problem, i64 %status, i64 %index, ptr %args,
                              i64 %nargs) noinline {
entry:
  %report_at = getelementptr %Holder, ptr %self, i32 0, i32 2
  %report = load ptr, ptr %report_at
  %problem_number = call ptr @PyLong_FromLongLong(i64 %problem)
  %status_number = call ptr @PyLong_FromLongLong(i64 %status)
  %index_number = call ptr @PyLong_FromLongLong(i64 %index)
  %tuple = call ptr @make_tuple(ptr %args, i64 %nargs, i1 true)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %out, label %call
call:
  %raised = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %report, ptr %problem_number,
      ptr %status_number, ptr %index_number, ptr %tuple, ptr null)
  call void @Py_DecRef(ptr %tuple)
  br label %out
out:
  call void @Py_DecRef(ptr %index_number)
  call void @Py_DecRef(ptr %status_number)
  call void @Py_DecRef(ptr %problem_number)
  ret ptr null
}

; Workspace as a storage, its addresses noted among the values; null with an exception set.
define internal ptr @make_workspace(ptr %plan, ptr %values) {
entry:
  %shared = call i64 @field(ptr %plan, i64 $SHARED)
  %per = call i64 @field(ptr %plan, i64 $PER_THREAD)
  %threads = load atomic i64, ptr @facula_threads monotonic, align 8
  %private = mul i64 %per, %threads
  %bytes = add i64 %shared, %private
  %storage = call ptr @storage_new(i64 %bytes)
  %failed = icmp eq ptr %storage, null
  br i1 %failed, label %out, label %place
place:
  %data = call ptr @slot(ptr %storage, i64 $HEADER)
  store ptr %data, ptr %values
  %start = getelementptr i8, ptr %data, i64 %shared
  %start_at = getelementptr ptr, ptr %values, i64 1
  store ptr %start, ptr %start_at
  br label %out
out:
  ret ptr %storage
}

define internal i64 @run_released(ptr %plan, ptr %args, ptr %values, ptr %block,
                                  ptr %index_out) noinline {
  %n = call i64 @field(ptr %plan, i64 $NARGS)
  %pins = alloca ptr, i64 %n
  call void @pin(ptr %plan, ptr %args, ptr %pins)
  %in = atomicrmw add ptr @facula_inflight, i64 1 acq_rel
  %state = call ptr @PyEval_SaveThread()
  %status = call i64 @run_steps(ptr %plan, ptr %values, ptr %block, ptr %index_out)
  %out = atomicrmw sub ptr @facula_inflight, i64 1 acq_rel
  call void @PyEval_RestoreThread(ptr %state)
  call void @drop(ptr %pins, i64 %n)
  ret i64 %status
}

define ptr @launch_run(ptr %self, ptr %args, i64 %nargs) {
entry:
  %plan = call ptr @slot(ptr %self, i64 $HEADER)
  %want = call i64 @field(ptr %plan, i64 $NARGS)
  %counted = icmp eq i64 %want, %nargs
  br i1 %counted, label %begin, label %miscounted
miscounted:
  %c = call ptr @complain(ptr %self, i64 0, i64 0, i64 0, ptr %args, i64 %nargs)
  ret ptr null
begin:
  %nouts = call i64 @field(ptr %plan, i64 $NOUTS)
  %nvalues = call i64 @field(ptr %plan, i64 $NVALUES)
  %nblock = call i64 @field(ptr %plan, i64 $BLOCK)
  $COUNT_NOTES
  %values = alloca i64, i64 $ROOM, align 16
  %outputs = alloca ptr, i64 %nouts, align 16
  %block = alloca i64, i64 %nblock, align 16
  %index = alloca i64
  store i64 0, ptr %values
  $NOTE_ENTRY
  %arg_values = getelementptr i64, ptr %values, i64 1
  %out_values = getelementptr i64, ptr %arg_values, i64 %nargs
  %work_values = getelementptr i64, ptr %out_values, i64 %nouts
  ; Outputs first: making them may run the garbage collector and with it any Python code, which
  ; must not come between reading an argument's address and using it.
  %made = call i1 @make_outputs(ptr %plan, ptr %outputs, ptr %out_values)
  br i1 %made, label %space, label %fail
space:
  %shared = call i64 @field(ptr %plan, i64 $SHARED)
  %per = call i64 @field(ptr %plan, i64 $PER_THREAD)
  %either = or i64 %shared, %per
  %no_work = icmp eq i64 %either, 0
  br i1 %no_work, label %read, label %take
take:
  %taken = call ptr @make_workspace(ptr %plan, ptr %work_values)
  %no_space = icmp eq ptr %taken, null
  br i1 %no_space, label %fail_outputs, label %read
read:
  %work = phi ptr [ null, %space ], [ %taken, %take ]
  %wrong = call i64 @read_arguments(ptr %plan, ptr %args, ptr %arg_values)
  %readable = icmp eq i64 %wrong, -1
  br i1 %readable, label %mutate, label %mistyped
mutate:
  %lacking = call i64 @raise_versions(ptr %plan, ptr %args)
  %complete = icmp eq i64 %lacking, -1
  br i1 %complete, label %run, label %mistyped
run:
  %release = call i64 @field(ptr %plan, i64 $RELEASE)
  %holding = icmp eq i64 %release, 0
  br i1 %holding, label %run_here, label %run_free
run_here:
  %status_here = call i64 @run_steps(ptr %plan, ptr %values, ptr %block, ptr %index)
  br label %ran
run_free:
  %status_free = call i64 @run_released(ptr %plan, ptr %args, ptr %values, ptr %block, ptr %index)
  br label %ran
ran:
  %status = phi i64 [ %status_here, %run_here ], [ %status_free, %run_free ]
  call void @drop_work(ptr %work)
  %failed = icmp ne i64 %status, 0
  br i1 %failed, label %broken, label %wrap
wrap:
  $TELL
  switch i64 %nouts, label %several [ i64 0, label %nothing i64 1, label %single ]
nothing:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
single:
  %only = load ptr, ptr %outputs
  ret ptr %only
several:
  %tuple = call ptr @make_tuple(ptr %outputs, i64 %nouts, i1 false)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %fail_outputs, label %done
done:
  ret ptr %tuple
mistyped:
  %bad = phi i64 [ %wrong, %read ], [ %lacking, %mutate ]
  call void @drop_work(ptr %work)
  %d = call ptr @complain(ptr %self, i64 1, i64 0, i64 %bad, ptr %args, i64 %nargs)
  br label %fail_outputs
broken:
  %step = load i64, ptr %index
  %e = call ptr @complain(ptr %self, i64 2, i64 %status, i64 %step, ptr %args, i64 %nargs)
  br label %fail_outputs
fail_outputs:
  call void @drop(ptr %outputs, i64 %nouts)
  br label %fail
fail:
  ret ptr null
}

define internal void @drop_work(ptr %work) alwaysinline {
entry:
  %none = icmp eq ptr %work, null
  br i1 %none, label %out, label %free
free:
  call void @Py_DecRef(ptr %work)
  br label %out
out:
  ret void
}
