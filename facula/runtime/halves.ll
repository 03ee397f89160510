; Conversions between half and float for x86 processors without F16C, under the names by which
; LLVM's lowering calls them. Both are exact or round to nearest, ties to even.

define float @__extendhfsf2(half %x) {
  %short = bitcast half %x to i16
  %bits = zext i16 %short to i32
  %sign_low = and i32 %bits, 32768
  %sign = shl i32 %sign_low, 16
  %magnitude = and i32 %bits, 32767
  ; As a float's bits this is 2**-112 times too small, for denormals too.
  %shifted = shl i32 %magnitude, 13
  %small = bitcast i32 %shifted to float
  %scaled = fmul float %small, 0x46F0000000000000
  %finite = bitcast float %scaled to i32
  %infinite = or i32 %shifted, 2139095040
  %special = icmp uge i32 %magnitude, 31744
  %value = select i1 %special, i32 %infinite, i32 %finite
  %signed = or i32 %value, %sign
  %result = bitcast i32 %signed to float
  ret float %result
}

define half @__truncsfhf2(float %x) {
  %bits = bitcast float %x to i32
  %sign_high = lshr i32 %bits, 16
  %sign = and i32 %sign_high, 32768
  %magnitude = and i32 %bits, 2147483647
  ; Normal: a bias of 0xfff, and one more if the last bit kept is odd, rounds ties to even.
  %kept = lshr i32 %magnitude, 13
  %odd = and i32 %kept, 1
  %rebiased = add i32 %magnitude, -939520001
  %rounded = add i32 %rebiased, %odd
  %normal = lshr i32 %rounded, 13
  ; Denormal: adding 0.5 leaves the bits that a half has, rounded by the addition itself.
  %positive = bitcast i32 %magnitude to float
  %sum = fadd float %positive, 0.5
  %sum_bits = bitcast float %sum to i32
  %denormal = sub i32 %sum_bits, 1056964608
  %tiny = icmp ult i32 %magnitude, 947912704
  %finite = select i1 %tiny, i32 %denormal, i32 %normal
  %payload = and i32 %kept, 1023
  %quiet = or i32 %payload, 32256
  %nan = icmp ugt i32 %magnitude, 2139095040
  %unbounded = select i1 %nan, i32 %quiet, i32 31744
  %large = icmp uge i32 %magnitude, 1199570944
  %value = select i1 %large, i32 %unbounded, i32 %finite
  %signed = or i32 %value, %sign
  %short = trunc i32 %signed to i16
  %result = bitcast i16 %short to half
  ret half %result
}
