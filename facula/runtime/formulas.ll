; Formulas: see ir/formulas.py for what code is. Operations are filled in by formulas.py.

declare ptr @PyBytes_AsString(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyErr_Occurred()
declare void @PyErr_SetNone(ptr)
declare void @PyErr_SetObject(ptr, ptr)
declare void @Py_DecRef(ptr)
declare void @Py_IncRef(ptr)
declare { i64, i1 } @llvm.sadd.with.overflow.i64(i64, i64)
declare { i64, i1 } @llvm.ssub.with.overflow.i64(i64, i64)
declare { i64, i1 } @llvm.smul.with.overflow.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
@PyExc_OverflowError = external global ptr
@PyExc_KeyError = external global ptr
@_Py_NoneStruct = external global i64

define internal i64 @word(ptr %at, i64 %index) alwaysinline {
  %where = getelementptr i64, ptr %at, i64 %index
  %value = load i64, ptr %where
  ret i64 %value
}

; The value of an input; an exception may be set.
define internal i64 @input(ptr %names, ptr %values, i64 %number) {
entry:
  %name = call ptr @PyTuple_GetItem(ptr %names, i64 %number)
  %no_name = icmp eq ptr %name, null
  br i1 %no_name, label %fail, label %look
look:
  %item = call ptr @PyDict_GetItemWithError(ptr %values, ptr %name)
  %missing = icmp eq ptr %item, null
  br i1 %missing, label %none, label %convert
convert:
  %value = call i64 @PyLong_AsLongLong(ptr %item)
  ret i64 %value
none:
  %other = call ptr @PyErr_Occurred()
  %quiet = icmp eq ptr %other, null
  br i1 %quiet, label %complain, label %fail
complain:
  %class = load ptr, ptr @PyExc_KeyError
  call void @PyErr_SetObject(ptr %class, ptr %name)
  br label %fail
fail:
  ret i64 -1
}

; Quotient (%want 0) or remainder (1) towards minus infinity; 0 where %b is. %a is not the smallest.
define internal i64 @divide(i64 %a, i64 %b, i1 %want) {
entry:
  %zero = icmp eq i64 %b, 0
  br i1 %zero, label %nothing, label %some
some:
  %q = sdiv i64 %a, %b
  %r = srem i64 %a, %b
  %signs = xor i64 %r, %b
  %differ = icmp slt i64 %signs, 0
  %inexact = icmp ne i64 %r, 0
  %down = and i1 %differ, %inexact
  %q_less = sub i64 %q, 1
  %q_floor = select i1 %down, i64 %q_less, i64 %q
  %r_more = add i64 %r, %b
  %r_floor = select i1 %down, i64 %r_more, i64 %r
  %result = select i1 %want, i64 %r_floor, i64 %q_floor
  ret i64 %result
nothing:
  ret i64 0
}

; evaluate(code, names, values)
define ptr @formulas_evaluate(ptr %module, ptr %args, i64 %nargs) {
entry:
  %code_object = load ptr, ptr %args
  %names_at = getelementptr ptr, ptr %args, i64 1
  %names = load ptr, ptr %names_at
  %dict_at = getelementptr ptr, ptr %args, i64 2
  %dict = load ptr, ptr %dict_at
  %code = call ptr @PyBytes_AsString(ptr %code_object)
  %count = call i64 @word(ptr %code, i64 0)
  %guards = call i64 @word(ptr %code, i64 1)
  %results = call i64 @word(ptr %code, i64 2)
  %first = getelementptr i64, ptr %code, i64 3
  %values = alloca i64, i64 %count
  br label %test
test:
  %i = phi i64 [ 0, %entry ], [ %next, %store ]
  %at = phi ptr [ %first, %entry ], [ %at_next, %store ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %read, label %check
read:
  %operation = call i64 @word(ptr %at, i64 0)
  %na = call i64 @word(ptr %at, i64 1)
  %nb = call i64 @word(ptr %at, i64 2)
  switch i64 %operation, label %binary [ i64 $INPUT, label %input i64 $CONST, label %store ]
input:
  %given = call i64 @input(ptr %names, ptr %dict, i64 %na)
  %doubt = icmp eq i64 %given, -1
  br i1 %doubt, label %asked, label %store
asked:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %store, label %fail
binary:
  %a = call i64 @word(ptr %values, i64 %na)
  %b = call i64 @word(ptr %values, i64 %nb)
  switch i64 %operation, label %divided [
    i64 $ADD, label %add i64 $SUB, label %sub i64 $MUL, label %mul i64 $MIN, label %min
    i64 $MAX, label %max i64 $EQ, label %eq i64 $LT, label %lt ]
add:
  %sum = call { i64, i1 } @llvm.sadd.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
sub:
  %difference = call { i64, i1 } @llvm.ssub.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
mul:
  %product = call { i64, i1 } @llvm.smul.with.overflow.i64(i64 %a, i64 %b)
  br label %checked
checked:
  %pair = phi { i64, i1 } [ %sum, %add ], [ %difference, %sub ], [ %product, %mul ]
  %exact = extractvalue { i64, i1 } %pair, 0
  %beyond = extractvalue { i64, i1 } %pair, 1
  br i1 %beyond, label %overflow, label %store
divided:
  %smallest = icmp eq i64 %a, -9223372036854775808
  br i1 %smallest, label %overflow, label %divide
divide:
  %is_mod = icmp eq i64 %operation, $MOD
  %quotient = call i64 @divide(i64 %a, i64 %b, i1 %is_mod)
  br label %store
min:
  %smaller = call i64 @llvm.smin.i64(i64 %a, i64 %b)
  br label %store
max:
  %larger = call i64 @llvm.smax.i64(i64 %a, i64 %b)
  br label %store
eq:
  %equal = icmp eq i64 %a, %b
  %equal_bit = zext i1 %equal to i64
  br label %store
lt:
  %less = icmp slt i64 %a, %b
  %less_bit = zext i1 %less to i64
  br label %store
store:
  %value = phi i64 [ %na, %read ], [ %given, %input ], [ %given, %asked ], [ %exact, %checked ],
                   [ %quotient, %divide ], [ %smaller, %min ], [ %larger, %max ],
                   [ %equal_bit, %eq ], [ %less_bit, %lt ]
  %value_at = getelementptr i64, ptr %values, i64 %i
  store i64 %value, ptr %value_at
  %next = add i64 %i, 1
  %at_next = getelementptr i64, ptr %at, i64 3
  br label %test
check:
  %g = phi i64 [ 0, %test ], [ %g_next, %compare ]
  %g_at = phi ptr [ %at, %test ], [ %g_at_next, %compare ]
  %more_guards = icmp ult i64 %g, %guards
  br i1 %more_guards, label %compare, label %make
compare:
  %g_number = call i64 @word(ptr %g_at, i64 0)
  %answer = call i64 @word(ptr %g_at, i64 1)
  %found = call i64 @word(ptr %values, i64 %g_number)
  %g_next = add i64 %g, 1
  %g_at_next = getelementptr i64, ptr %g_at, i64 2
  %holds = icmp eq i64 %answer, %found
  br i1 %holds, label %check, label %other
other:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
make:
  %tuple = call ptr @PyTuple_New(i64 %results)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %fail, label %fill
fill:
  %r = phi i64 [ 0, %make ], [ %r_next, %set ]
  %more_results = icmp ult i64 %r, %results
  br i1 %more_results, label %number, label %done
number:
  %r_number = call i64 @word(ptr %g_at, i64 %r)
  %result = call i64 @word(ptr %values, i64 %r_number)
  %object = call ptr @PyLong_FromLongLong(i64 %result)
  %no_object = icmp eq ptr %object, null
  br i1 %no_object, label %drop, label %set
set:
  %ok = call i32 @PyTuple_SetItem(ptr %tuple, i64 %r, ptr %object)
  %r_next = add i64 %r, 1
  br label %fill
done:
  ret ptr %tuple
drop:
  call void @Py_DecRef(ptr %tuple)
  ret ptr null
overflow:
  %class = load ptr, ptr @PyExc_OverflowError
  call void @PyErr_SetNone(ptr %class)
  br label %fail
fail:
  ret ptr null
}
