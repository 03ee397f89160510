; kernel micro_matmul(a: float32[] r, b: float32[] r, c: float32[] w, k: size)
;   local r0: float32[2][16] = 0.0
;   serial i1 in 0 .. k
;     vector i2 in 0 .. 16
;       unroll i3 in 0 .. 2
;         r0[i3, i2] = fma(a[add(mul(i1, 2), i3)], b[add(mul(i1, 16), i2)], r0[i3, i2])
;   vector i4 in 0 .. 16
;     unroll i5 in 0 .. 2
;       c[add(mul(i5, 16), i4)] = r0[i5, i4]
declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)
define i64 @micro_matmul(ptr %args) nounwind {
entry:
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load ptr, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 3
  %v7 = load i64, ptr %v6, align 8
  %v8 = icmp slt i64 0, %v7
  br i1 %v8, label %b9, label %b10
b9:
  %v12 = phi i64 [ 0, %entry ], [ %v35, %b9 ]
  %v13 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v25, %b9 ]
  %v14 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v28, %b9 ]
  %v15 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v33, %b9 ]
  %v16 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v34, %b9 ]
  %v17 = shl i64 %v12, 1
  %v18 = getelementptr float, ptr %v1, i64 %v17
  %v19 = load float, ptr %v18, align 4
  %v20 = shl i64 %v12, 4
  %v21 = getelementptr float, ptr %v3, i64 %v20
  %v22 = load <8 x float>, ptr %v21, align 4
  %v23 = insertelement <8 x float> poison, float %v19, i64 0
  %v24 = shufflevector <8 x float> %v23, <8 x float> poison, <8 x i32> zeroinitializer
  %v25 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v24, <8 x float> %v22, <8 x float> %v13)
  %v26 = getelementptr float, ptr %v21, i64 8
  %v27 = load <8 x float>, ptr %v26, align 4
  %v28 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v24, <8 x float> %v27, <8 x float> %v14)
  %v29 = getelementptr float, ptr %v18, i64 1
  %v30 = load float, ptr %v29, align 4
  %v31 = insertelement <8 x float> poison, float %v30, i64 0
  %v32 = shufflevector <8 x float> %v31, <8 x float> poison, <8 x i32> zeroinitializer
  %v33 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v32, <8 x float> %v22, <8 x float> %v15)
  %v34 = call <8 x float> @llvm.fma.v8f32(<8 x float> %v32, <8 x float> %v27, <8 x float> %v16)
  %v35 = add i64 %v12, 1
  %v36 = icmp slt i64 %v35, %v7
  br i1 %v36, label %b9, label %b10
b10:
  %v37 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v25, %b9 ]
  %v38 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v28, %b9 ]
  %v39 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v33, %b9 ]
  %v40 = phi <8 x float> [ splat (float 0x0000000000000000), %entry ], [ %v34, %b9 ]
  store <8 x float> %v37, ptr %v5, align 4
  %v41 = getelementptr float, ptr %v5, i64 8
  store <8 x float> %v38, ptr %v41, align 4
  %v42 = getelementptr float, ptr %v5, i64 16
  store <8 x float> %v39, ptr %v42, align 4
  %v43 = getelementptr float, ptr %v5, i64 24
  store <8 x float> %v40, ptr %v43, align 4
  ret i64 0
}
