; kernel row_sum(x: float32[] r, z: float32[] w, r: size, c: size)
;   parallel i0 in 0 .. r grain 16
;     local r1: float32 = 0.0
;     vector i2 in 0 .. c
;       r1 add= x[add(mul(i0, c), i2)]
;     z[i0] = r1
@facula_threads = external global i64
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>)
declare void @facula_parallel(ptr, ptr, i64)
define internal void @row_sum.par0(ptr %env, i64 %chunk, i64 %tid) nounwind {
entry:
  %v1 = getelementptr i64, ptr %env, i64 0
  %v2 = load i64, ptr %v1, align 8
  %v3 = getelementptr i64, ptr %env, i64 1
  %v4 = load i64, ptr %v3, align 8
  %v17 = getelementptr i64, ptr %env, i64 2
  %v18 = load i64, ptr %v17, align 8
  %v30 = getelementptr i64, ptr %env, i64 3
  %v31 = load ptr, ptr %v30, align 8
  %v106 = getelementptr i64, ptr %env, i64 4
  %v107 = load ptr, ptr %v106, align 8
  %v5 = call i64 @llvm.smin.i64(i64 %chunk, i64 %v4)
  %v6 = mul i64 %chunk, %v2
  %v7 = add i64 %v6, %v5
  %v8 = icmp slt i64 %chunk, %v4
  %v9 = zext i1 %v8 to i64
  %v10 = add i64 %v2, %v9
  %v11 = add i64 %v7, %v10
  %v12 = icmp slt i64 %v7, %v11
  %v19 = and i64 %v18, -64
  %v20 = icmp slt i64 0, %v19
  %v51 = icmp slt i64 %v19, %v18
  %v76 = add i64 %v18, 15
  %v77 = lshr i64 %v76, 4
  %v78 = and i64 %v77, 1
  %v79 = icmp ne i64 %v78, 0
  %v84 = and i64 %v77, 2
  %v85 = icmp ne i64 %v84, 0
  br i1 %v12, label %b13, label %b14
b13:
  %v16 = phi i64 [ %v7, %entry ], [ %v109, %b53 ]
  %v29 = mul i64 %v16, %v18
  %v32 = getelementptr float, ptr %v31, i64 %v29
  br i1 %v20, label %b21, label %b22
b21:
  %v24 = phi i64 [ 0, %b13 ], [ %v45, %b21 ]
  %v25 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v35, %b21 ]
  %v26 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v38, %b21 ]
  %v27 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v41, %b21 ]
  %v28 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v44, %b21 ]
  %v33 = getelementptr float, ptr %v32, i64 %v24
  %v34 = load <16 x float>, ptr %v33, align 4
  %v35 = fadd <16 x float> %v25, %v34
  %v36 = getelementptr float, ptr %v33, i64 16
  %v37 = load <16 x float>, ptr %v36, align 4
  %v38 = fadd <16 x float> %v26, %v37
  %v39 = getelementptr float, ptr %v33, i64 32
  %v40 = load <16 x float>, ptr %v39, align 4
  %v41 = fadd <16 x float> %v27, %v40
  %v42 = getelementptr float, ptr %v33, i64 48
  %v43 = load <16 x float>, ptr %v42, align 4
  %v44 = fadd <16 x float> %v28, %v43
  %v45 = add i64 %v24, 64
  %v46 = icmp slt i64 %v45, %v19
  br i1 %v46, label %b21, label %b22
b22:
  %v47 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v35, %b21 ]
  %v48 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v38, %b21 ]
  %v49 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v41, %b21 ]
  %v50 = phi <16 x float> [ splat (float 0x8000000000000000), %b13 ], [ %v44, %b21 ]
  br i1 %v51, label %b52, label %b53
b52:
  %v55 = phi i64 [ %v19, %b22 ], [ %v70, %b52 ]
  %v56 = phi <16 x float> [ %v47, %b22 ], [ %v57, %b52 ]
  %v57 = phi <16 x float> [ %v48, %b22 ], [ %v58, %b52 ]
  %v58 = phi <16 x float> [ %v49, %b22 ], [ %v59, %b52 ]
  %v59 = phi <16 x float> [ %v50, %b22 ], [ %v69, %b52 ]
  %v60 = sub i64 %v18, %v55
  %v61 = call i64 @llvm.smin.i64(i64 %v60, i64 16)
  %v62 = trunc i64 %v61 to i32
  %v63 = insertelement <16 x i32> poison, i32 %v62, i64 0
  %v64 = shufflevector <16 x i32> %v63, <16 x i32> poison, <16 x i32> zeroinitializer
  %v65 = icmp ult <16 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>, %v64
  %v66 = getelementptr float, ptr %v32, i64 %v55
  %v67 = call <16 x float> @llvm.masked.load.v16f32.p0(ptr %v66, i32 4, <16 x i1> %v65, <16 x float> zeroinitializer)
  %v68 = fadd <16 x float> %v56, %v67
  %v69 = select <16 x i1> %v65, <16 x float> %v68, <16 x float> %v56
  %v70 = add i64 %v55, 16
  %v71 = icmp slt i64 %v70, %v18
  br i1 %v71, label %b52, label %b53
b53:
  %v72 = phi <16 x float> [ %v47, %b22 ], [ %v57, %b52 ]
  %v73 = phi <16 x float> [ %v48, %b22 ], [ %v58, %b52 ]
  %v74 = phi <16 x float> [ %v49, %b22 ], [ %v59, %b52 ]
  %v75 = phi <16 x float> [ %v50, %b22 ], [ %v69, %b52 ]
  %v80 = select i1 %v79, <16 x float> %v75, <16 x float> %v72
  %v81 = select i1 %v79, <16 x float> %v72, <16 x float> %v73
  %v82 = select i1 %v79, <16 x float> %v73, <16 x float> %v74
  %v83 = select i1 %v79, <16 x float> %v74, <16 x float> %v75
  %v86 = select i1 %v85, <16 x float> %v82, <16 x float> %v80
  %v87 = select i1 %v85, <16 x float> %v83, <16 x float> %v81
  %v88 = select i1 %v85, <16 x float> %v80, <16 x float> %v82
  %v89 = select i1 %v85, <16 x float> %v81, <16 x float> %v83
  %v90 = fadd <16 x float> %v86, %v87
  %v91 = fadd <16 x float> %v88, %v89
  %v92 = fadd <16 x float> %v90, %v91
  %v93 = shufflevector <16 x float> %v92, <16 x float> poison, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  %v94 = shufflevector <16 x float> %v92, <16 x float> poison, <8 x i32> <i32 8, i32 9, i32 10, i32 11, i32 12, i32 13, i32 14, i32 15>
  %v95 = fadd <8 x float> %v93, %v94
  %v96 = shufflevector <8 x float> %v95, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v97 = shufflevector <8 x float> %v95, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v98 = fadd <4 x float> %v96, %v97
  %v99 = shufflevector <4 x float> %v98, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v100 = shufflevector <4 x float> %v98, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v101 = fadd <2 x float> %v99, %v100
  %v102 = extractelement <2 x float> %v101, i64 0
  %v103 = extractelement <2 x float> %v101, i64 1
  %v104 = fadd float %v102, %v103
  %v105 = fadd float 0x0000000000000000, %v104
  %v108 = getelementptr float, ptr %v107, i64 %v16
  store float %v105, ptr %v108, align 4
  %v109 = add i64 %v16, 1
  %v110 = icmp slt i64 %v109, %v11
  br i1 %v110, label %b13, label %b14
b14:
  ret void
}
define i64 @row_sum(ptr %args) nounwind {
entry:
  %v21 = alloca [5 x i64], align 8
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load i64, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 3
  %v7 = load i64, ptr %v6, align 8
  %v8 = icmp sgt i64 %v5, 0
  %v9 = load i64, ptr @facula_threads, align 8
  %v10 = icmp sgt i64 %v9, 1
  %v11 = shl i64 %v9, 2
  %v12 = select i1 %v10, i64 %v11, i64 1
  %v13 = sdiv i64 %v5, 16
  %v14 = call i64 @llvm.smin.i64(i64 %v13, i64 %v12)
  %v15 = call i64 @llvm.smax.i64(i64 %v14, i64 1)
  %v16 = sdiv i64 %v5, %v15
  %v17 = mul i64 %v16, %v15
  %v18 = sub i64 %v5, %v17
  br i1 %v8, label %b19, label %b20
b19:
  store i64 %v16, ptr %v21, align 8
  %v22 = getelementptr i64, ptr %v21, i64 1
  store i64 %v18, ptr %v22, align 8
  %v23 = getelementptr i64, ptr %v21, i64 2
  store i64 %v7, ptr %v23, align 8
  %v24 = getelementptr i64, ptr %v21, i64 3
  store ptr %v1, ptr %v24, align 8
  %v25 = getelementptr i64, ptr %v21, i64 4
  store ptr %v3, ptr %v25, align 8
  %v26 = icmp eq i64 %v15, 1
  br i1 %v26, label %b27, label %b29
b27:
  call void @row_sum.par0(ptr %v21, i64 0, i64 0)
  br label %b28
b29:
  call void @facula_parallel(ptr @row_sum.par0, ptr %v21, i64 %v15)
  br label %b28
b28:
  br label %b20
b20:
  ret i64 0
}
