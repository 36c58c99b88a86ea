<#
.SYNOPSIS
Lets this Windows host trust an exitgate gateway and use its proxy. The gateway serves this file.

.DESCRIPTION
There is no exitgate program for Windows, so this puts the interception roots into the machine's store, and sets variables
and proxy settings. The host gets no identity: an administrator registers its address. -Remove undoes it. Run it elevated.
It reads no token, since it needs none. It works with Windows PowerShell 5.1 and later, where curl.exe is (Windows 10 1803
and later).
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [string]$Gateway,
    [string]$Fingerprint,
    [switch]$DryRun,
    [switch]$Remove
)
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$State = Join-Path $env:ProgramData 'exitgate'
$Record = Join-Path $State 'undo.json'
$Settings = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\CurrentVersion\Internet Settings'
$Internet = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Internet Settings'

function Get-Sha256([byte[]]$Bytes) {
    $h = [System.Security.Cryptography.SHA256]::Create()
    return ([System.BitConverter]::ToString($h.ComputeHash($Bytes)) -replace '-', '').ToLowerInvariant()
}

function Test-Admin {
    $me = New-Object System.Security.Principal.WindowsPrincipal([System.Security.Principal.WindowsIdentity]::GetCurrent())
    return $me.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Undo-Record takes back what the record says, newest first.
function Undo-Record {
    if (-not (Test-Path -LiteralPath $Record)) { return }
    $acts = @(Get-Content -LiteralPath $Record -Raw | ConvertFrom-Json)
    [array]::Reverse($acts)
    foreach ($a in $acts) {
        switch ($a.kind) {
            'root' { & certutil.exe -delstore Root $a.name | Out-Null }
            'variable' { [Environment]::SetEnvironmentVariable($a.name, $a.before, 'Machine') }
            'registry' {
                if ($null -eq $a.before) { Remove-ItemProperty -LiteralPath $a.path -Name $a.name -ErrorAction SilentlyContinue }
                else { Set-ItemProperty -LiteralPath $a.path -Name $a.name -Value $a.before }
            }
            'winhttp' { & netsh.exe winhttp reset proxy | Out-Null }
        }
    }
    Remove-Item -LiteralPath $State -Recurse -Force
}

if (-not $DryRun -and -not (Test-Admin)) { throw 'This needs an elevated PowerShell.' }
if ($Remove) { Undo-Record; Write-Output 'removed'; return }

if ($Gateway -notmatch '^https://[A-Za-z0-9._\[\]:-]+/?$') { throw 'Give the gateway: -Gateway https://NAME:PORT' }
$Gateway = $Gateway.TrimEnd('/')
$Fingerprint = ($Fingerprint -replace ':', '').ToLowerInvariant()
if ($Fingerprint -notmatch '^[0-9a-f]{64}$') { throw 'The fingerprint is not 64 hexadecimal digits.' }

$Tmp = Join-Path ([System.IO.Path]::GetTempPath()) ([System.IO.Path]::GetRandomFileName())
New-Item -ItemType Directory -Path $Tmp | Out-Null

# Each act is recorded before it is done.
$script:Acts = @()
function Add-Act($Act) {
    $script:Acts += $Act
    if (-not (Test-Path -LiteralPath $State)) { New-Item -ItemType Directory -Path $State | Out-Null }
    ConvertTo-Json -InputObject @($script:Acts) -Depth 4 | Set-Content -LiteralPath $Record -Encoding UTF8
}

function Set-Variable1([string]$Name, [string]$Value) {
    $before = [Environment]::GetEnvironmentVariable($Name, 'Machine')
    if ($before -eq $Value) { return }
    if ($DryRun) { Write-Output "would set $Name"; return }
    Add-Act @{ kind = 'variable'; name = $Name; before = $before }
    [Environment]::SetEnvironmentVariable($Name, $Value, 'Machine')
    Write-Output "set $Name"
}

function Set-Registry([string]$Path, [string]$Name, $Value) {
    $before = $null
    if (Test-Path -LiteralPath $Path) {
        $item = Get-ItemProperty -LiteralPath $Path
        if ($item.PSObject.Properties.Name -contains $Name) { $before = $item.$Name }
    }
    if ($before -eq $Value) { return }
    if ($DryRun) { Write-Output "would set $Path $Name"; return }
    Add-Act @{ kind = 'registry'; path = $Path; name = $Name; before = $before }
    if (-not (Test-Path -LiteralPath $Path)) { New-Item -Path $Path -Force | Out-Null }
    Set-ItemProperty -LiteralPath $Path -Name $Name -Value $Value
    Write-Output "set $Path $Name"
}

try {
    # Whoever answers is believed only if the bytes have the fingerprint; the rest is fetched with exactly these as the only
    # root. curl.exe of Windows uses Schannel, which needs --ssl-no-revoke for a root that has no revocation list.
    & curl.exe -sSk --noproxy '*' --max-time 60 -o (Join-Path $Tmp 'root.json') "$Gateway/root/$Fingerprint"
    if ($LASTEXITCODE -ne 0) { throw "The gateway $Gateway cannot be reached." }
    $pem = (Get-Content -LiteralPath (Join-Path $Tmp 'root.json') -Raw | ConvertFrom-Json).ca
    $der = [Convert]::FromBase64String((($pem -split "`n" | Where-Object { $_ -notmatch '-----' }) -join '').Trim())
    if ((Get-Sha256 $der) -ne $Fingerprint) { throw 'Wrong fingerprint: somebody may stand in between.' }
    $ca = Join-Path $Tmp 'root.pem'
    "-----BEGIN CERTIFICATE-----`n" + [Convert]::ToBase64String($der, 'InsertLineBreaks') + "`n-----END CERTIFICATE-----" | Set-Content -LiteralPath $ca -Encoding ASCII
    foreach ($f in 'trust/roots.pem', 'proxy.pac') {
        & curl.exe -sS --fail --noproxy '*' --ssl-no-revoke --cacert $ca --max-time 60 -o (Join-Path $Tmp ($f -replace '.*/', '')) "$Gateway/$f"
        if ($LASTEXITCODE -ne 0) { throw "The gateway's /$f cannot be fetched, or its certificate is not under the root." }
    }

    $known = @(Get-ChildItem Cert:\LocalMachine\Root | ForEach-Object { $_.Thumbprint })
    $all = Get-Content -LiteralPath (Join-Path $Tmp 'roots.pem') -Raw
    $bundle = Join-Path $State 'roots.pem'
    $n = 0
    foreach ($m in [regex]::Matches($all, '(?s)-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----')) {
        $bytes = [Convert]::FromBase64String(($m.Groups[1].Value -replace '\s', ''))
        $cert = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2(, $bytes)
        $n++
        if ($known -contains $cert.Thumbprint) { continue }
        if ($DryRun) { Write-Output "would add the root $($cert.Thumbprint)"; continue }
        $file = Join-Path $Tmp "root-$n.crt"
        [System.IO.File]::WriteAllBytes($file, $bytes)
        Add-Act @{ kind = 'root'; name = $cert.Thumbprint }
        & certutil.exe -addstore -f Root $file | Out-Null
        if ($LASTEXITCODE -ne 0) { throw 'certutil could not add the root.' }
        Write-Output "added the root $($cert.Thumbprint)"
    }
    if ($n -eq 0) { throw 'The gateway has no interception root.' }

    # Programs that do not read Windows' store get a file. The variables that replace a program's own roots are left alone:
    # the file holds the gateway's roots only.
    if (-not $DryRun) {
        if (-not (Test-Path -LiteralPath $State)) { New-Item -ItemType Directory -Path $State | Out-Null }
        Set-Content -LiteralPath $bundle -Value $all -Encoding ASCII
    }
    Set-Variable1 'NODE_EXTRA_CA_CERTS' $bundle
    $line = @(Get-Content -LiteralPath (Join-Path $Tmp 'proxy.pac') | Where-Object { $_ -match '^// exitgate ' })
    if ($line.Count -eq 1 -and $line[0] -match '^// exitgate http=(https?://[A-Za-z0-9.:\[\]_-]+) https=(https?://[A-Za-z0-9.:\[\]_-]+) no_proxy=([A-Za-z0-9.:/_,*\[\]-]*)$') {
        $http = $Matches[1]; $https = $Matches[2]; $none = ('localhost,127.0.0.1,::1,' + $Matches[3]).TrimEnd(',')
        Set-Variable1 'HTTP_PROXY' $http
        Set-Variable1 'HTTPS_PROXY' $https
        Set-Variable1 'NO_PROXY' $none
        $server = ($https -replace '^https?://', '')
        $bypass = (($none -split ',' | Where-Object { $_ -notmatch '/' } | ForEach-Object { $_ -replace '^\.', '*.' }) -join ';') + ';<local>'
        Set-Registry $Settings 'ProxySettingsPerUser' 0
        Set-Registry $Internet 'ProxyEnable' 1
        Set-Registry $Internet 'ProxyServer' $server
        Set-Registry $Internet 'ProxyOverride' $bypass
        if (-not $DryRun) {
            Add-Act @{ kind = 'winhttp' }
            & netsh.exe winhttp set proxy $server $bypass | Out-Null
        }
    }
    Write-Output 'note: this host has no identity; let an administrator register its address.'
}
catch {
    if (-not $DryRun -and $script:Acts.Count -gt 0) { Undo-Record }
    throw
}
finally {
    Remove-Item -LiteralPath $Tmp -Recurse -Force -ErrorAction SilentlyContinue
}
