; kernel collatz(x: int64[] r, y: int64[] w)
;   local r0: int64 = 0
;   local r1: int64 = 0
;   r0 = x[0]
;   while gt(r0, 1)
;     if eq(and(r0, 1), 0)
;       r0 = div(r0, 2)
;     else
;       r0 = add(mul(r0, 3), 1)
;     r1 = add(r1, 1)
;   y[0] = r1
define i64 @collatz(ptr %args) nounwind {
entry:
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = load i64, ptr %v1, align 8
  br label %b5
b5:
  %v8 = phi i64 [ %v4, %entry ], [ %v19, %b14 ]
  %v9 = phi i64 [ 0, %entry ], [ %v20, %b14 ]
  %v10 = icmp sgt i64 %v8, 1
  br i1 %v10, label %b6, label %b7
b6:
  %v11 = and i64 %v8, 1
  %v12 = icmp eq i64 %v11, 0
  br i1 %v12, label %b13, label %b15
b13:
  %v16 = sdiv i64 %v8, 2
  br label %b14
b15:
  %v17 = mul i64 %v8, 3
  %v18 = add i64 %v17, 1
  br label %b14
b14:
  %v19 = phi i64 [ %v16, %b13 ], [ %v18, %b15 ]
  %v20 = add i64 %v9, 1
  br label %b5
b7:
  store i64 %v9, ptr %v3, align 8
  ret i64 0
}
