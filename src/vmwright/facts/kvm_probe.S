/* The firmware of the KVM probe (kvm.py): the last 512 bytes of a 64 KiB image that ends at 4 GiB.
 * Enters protected mode and then long mode, uses the x87 unit, CPUID and SSE2, as any guest's boot does, and reports by
 * QEMU's isa-debug-exit device at port 0xF4. Assemble: gcc -m32 -c kvm_probe.S && objcopy -O binary -j .text kvm_probe.o */
.code16
.org 0
start16:
    cli
    lgdtl %cs:(0xFE00 + (gdtr - base))
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $(0xFFFF0000 + 0xFE00 + (start32 - base))
.code32
start32:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x8000, %esp
    fwait
    fninit
    /* page tables: all clear first */
    xorl %eax, %eax
    movl $0x1000, %edi
    movl $0x1800, %ecx
    cld
    rep stosl
    movl $0x2003, 0x1000
    /* identity: the lowest GiB (directory at 0x3000), and the one below 4 GiB (at 0x4000), where this code is */
    movl $0x3003, 0x2000
    movl $0x4003, 0x2018
    movl $0x83, %eax
    movl $0x3000, %edi
1:  movl %eax, (%edi)
    leal 0xC0000000(%eax), %edx
    movl %edx, 0x1000(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    cmpl $0x4000, %edi
    jne 1b
    movl $0x1000, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax              /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax              /* EFER.LME */
    wrmsr
    movl %cr0, %eax
    andl $0xFFFFFFFB, %eax        /* CR0.EM off */
    orl $0x80000002, %eax         /* CR0.PG, CR0.MP */
    movl %eax, %cr0
    ljmpl $24, $(0xFFFF0000 + 0xFE00 + (start64 - base))
.code64
start64:
    movl $1, %eax
    cpuid
    movq %rax, %xmm0
    paddq %xmm0, %xmm0
    movq %xmm0, %rbx
    addq %rax, %rax
    cmpq %rax, %rbx
    jne 2f
    movb $0x10, %al
    outb %al, $0xf4
2:  hlt
    jmp 2b
.balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00AF9B000000FFFF
gdtr:
    .word gdtr - gdt - 1
    .long 0xFFFF0000 + 0xFE00 + (gdt - base)
.equ base, start16
.org 0x1F0
.code16
reset:
    .byte 0xE9
    .word start16 - . - 2
    .org 0x200
