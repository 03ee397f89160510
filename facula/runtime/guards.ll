; Guards: part of launch.ll. Words: the number of arguments, the number of checks, then six words a
; check, see guards.py: its kind, and what that takes.

declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyDict_GetItem(ptr, ptr)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare i64 @PyDict_Size(ptr)
declare i64 @PyList_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyBool_FromLong(i64)

; Whether one check holds.
define internal i1 @holds(ptr %check, ptr %args) {
entry:
  %place = alloca i64
  %key_at = alloca ptr
  %value_at = alloca ptr
  %kind = load i64, ptr %check
  %first = call i64 @field(ptr %check, i64 1)
  %object = inttoptr i64 %first to ptr
  %offset = call i64 @field(ptr %check, i64 2)
  %second = inttoptr i64 %offset to ptr
  %third = call i64 @field(ptr %check, i64 3)
  %type_word = call i64 @field(ptr %check, i64 4)
  %expected_word = call i64 @field(ptr %check, i64 5)
  %expected = inttoptr i64 %expected_word to ptr
  %argument_at = getelementptr ptr, ptr %args, i64 %first
  switch i64 %kind, label %call [ i64 0, label %same i64 1, label %argument i64 2, label %slot
      i64 3, label %unlike i64 4, label %below i64 5, label %attribute i64 6, label %item
      i64 7, label %list i64 8, label %dict i64 9, label %apart i64 10, label %others ]
same:
  %given = load ptr, ptr %argument_at
  br label %compare
argument:
  %owner = load ptr, ptr %argument_at
  %held = call ptr @slot(ptr %owner, i64 %offset)
  br label %compare
slot:
  %value = call ptr @slot(ptr %object, i64 %offset)
  br label %compare
unlike:
  %avoided = call ptr @slot(ptr %object, i64 %offset)
  %differs = icmp ne ptr %avoided, %expected
  ret i1 %differs
below:
  %inner = call ptr @slot(ptr %object, i64 %offset)
  %no_inner = icmp eq ptr %inner, null
  br i1 %no_inner, label %no, label %below_type
below_type:
  %type = call ptr @slot(ptr %inner, i64 $TYPE_AT)
  %wanted_type = inttoptr i64 %type_word to ptr
  %right = icmp eq ptr %type, %wanted_type
  br i1 %right, label %below_slot, label %no
below_slot:
  %deep = call ptr @slot(ptr %inner, i64 %third)
  br label %compare
attribute:
  %got = call ptr @PyObject_GetAttr(ptr %object, ptr %second)
  %missing = icmp eq ptr %got, null
  br i1 %missing, label %clear, label %release
release:
  call void @Py_DecRef(ptr %got)
  br label %compare
clear:
  call void @PyErr_Clear()
  %nothing = icmp eq ptr %expected, null
  ret i1 %nothing
item:
  %found = call ptr @PyDict_GetItem(ptr %object, ptr %second)
  br label %compare
call:
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %object, ptr null)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %clear, label %answered
answered:
  call void @Py_DecRef(ptr %answer)
  br label %compare
apart:
  ; Two arguments that may not share what lies in a slot.
  %one = load ptr, ptr %argument_at
  %one_held = call ptr @slot(ptr %one, i64 %offset)
  %other_at = getelementptr ptr, ptr %args, i64 %third
  %other = load ptr, ptr %other_at
  %other_held = call ptr @slot(ptr %other, i64 %offset)
  %are_apart = icmp ne ptr %one_held, %other_held
  ret i1 %are_apart
others:
  ; An argument's slot that may hold nothing of a tuple.
  %own = load ptr, ptr %argument_at
  %own_held = call ptr @slot(ptr %own, i64 %offset)
  %count = call i64 @PyTuple_Size(ptr %expected)
  br label %others_test
others_test:
  %j = phi i64 [ 0, %others ], [ %j1, %others_next ]
  %more_others = icmp ult i64 %j, %count
  br i1 %more_others, label %others_next, label %yes
others_next:
  %taken = call ptr @PyTuple_GetItem(ptr %expected, i64 %j)
  %j1 = add i64 %j, 1
  %shared = icmp eq ptr %taken, %own_held
  br i1 %shared, label %no, label %others_test
list:
  %items = call i64 @PyTuple_Size(ptr %expected)
  %length = call i64 @PyList_Size(ptr %object)
  %long = icmp eq i64 %items, %length
  br i1 %long, label %list_test, label %no
list_test:
  %k = phi i64 [ 0, %list ], [ %k1, %list_next ]
  %more_items = icmp ult i64 %k, %items
  br i1 %more_items, label %list_next, label %yes
list_next:
  %now = call ptr @PyList_GetItem(ptr %object, i64 %k)
  %before = call ptr @PyTuple_GetItem(ptr %expected, i64 %k)
  %k1 = add i64 %k, 1
  %kept = icmp eq ptr %now, %before
  br i1 %kept, label %list_test, label %no
dict:
  ; The tuple has the keys, then the values.
  store i64 0, ptr %place
  %both = call i64 @PyTuple_Size(ptr %expected)
  %pairs = lshr i64 %both, 1
  %size = call i64 @PyDict_Size(ptr %object)
  %alike = icmp eq i64 %size, %pairs
  br i1 %alike, label %dict_test, label %no
dict_test:
  %p = phi i64 [ 0, %dict ], [ %p1, %dict_value ]
  %some = call i32 @PyDict_Next(ptr %object, ptr %place, ptr %key_at, ptr %value_at)
  %ended = icmp eq i32 %some, 0
  br i1 %ended, label %yes, label %dict_next
dict_next:
  %key = load ptr, ptr %key_at
  %key_before = call ptr @PyTuple_GetItem(ptr %expected, i64 %p)
  %same_key = icmp eq ptr %key, %key_before
  br i1 %same_key, label %dict_value, label %no
dict_value:
  %item_now = load ptr, ptr %value_at
  %second_half = add i64 %p, %pairs
  %item_before = call ptr @PyTuple_GetItem(ptr %expected, i64 %second_half)
  %p1 = add i64 %p, 1
  %same_item = icmp eq ptr %item_now, %item_before
  br i1 %same_item, label %dict_test, label %no
compare:
  %here = phi ptr [ %given, %same ], [ %held, %argument ], [ %value, %slot ], [ %deep, %below_slot ],
                  [ %got, %release ], [ %found, %item ], [ %answer, %answered ]
  %is = icmp eq ptr %here, %expected
  ret i1 %is
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether all checks hold for these arguments.
define ptr @launch_guard(ptr %self, ptr %args, i64 %nargs) {
entry:
  %words = call ptr @slot(ptr %self, i64 $HEADER)
  %want = load i64, ptr %words
  %n = call i64 @field(ptr %words, i64 1)
  %checks = getelementptr i64, ptr %words, i64 2
  %counted = icmp eq i64 %want, %nargs
  br i1 %counted, label %test, label %out
test:
  %i = phi i64 [ 0, %entry ], [ %next, %look ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %look, label %out
look:
  %start = mul i64 %i, 6
  %check = getelementptr i64, ptr %checks, i64 %start
  %next = add i64 %i, 1
  %good = call i1 @holds(ptr %check, ptr %args)
  br i1 %good, label %test, label %out
out:
  %all = phi i64 [ 0, %entry ], [ 1, %test ], [ 0, %look ]
  %answer = call ptr @PyBool_FromLong(i64 %all)
  ret ptr %answer
}
